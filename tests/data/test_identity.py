"""Which data a checkpoint's model may read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.identity import check_same_data, check_same_ids, data_identity, saved_numbers
from lightning_ccn.errors import DataError


@pytest.fixture
def without_ids(make_dataset: Callable[..., Path]) -> Callable[..., Dataset]:
    """`without_ids("name", seed=1)` opens a folder as another program may write it: without vocabulary/."""

    def make(name: str, **arguments: Any) -> Dataset:
        folder = make_dataset(name, **arguments)
        shutil.rmtree(folder / "vocabulary")
        dataset = Dataset.open(make_dataset(name + "-whole", **arguments))
        dataset.folder, dataset.digests = folder, {}
        return dataset

    return make


def test_other_pages_with_the_same_vocabularies_fit(make_dataset: Callable[..., Path]) -> None:
    saved = data_identity(Dataset.open(make_dataset("may")))
    check_same_data(saved, Dataset.open(make_dataset("june", seed=1)))


def test_other_ids_of_the_same_number_do_not_fit(make_dataset: Callable[..., Path]) -> None:
    may = Dataset.open(make_dataset("may"))
    other = Dataset.open(make_dataset("other"))
    other.digests = {**other.digests, "user": "renumbered"}
    with pytest.raises(DataError, match=r"vocabulary.user: \w{8} -> renumbered\. Score with the model of"):
        check_same_data(data_identity(may), other)
    with pytest.raises(DataError, match=r"this run .* vocabulary.user: \w{8} -> renumbered\. Resume with the model"):
        check_same_data(data_identity(may), other, resuming=True)


def test_without_a_vocabulary_only_the_data_of_the_training_fit(without_ids: Callable[..., Dataset]) -> None:
    may, june = without_ids("may"), without_ids("june", seed=1)
    saved = data_identity(may)
    check_same_data(saved, may)
    with pytest.raises(DataError, match=r"june is not the data .* vocabulary/item.parquet.* --data.same_ids true"):
        check_same_data(saved, june)
    june.same_ids = True
    check_same_data(saved, june)


def test_a_run_continues_with_the_same_files_only(make_dataset: Callable[..., Path]) -> None:
    saved = data_identity(Dataset.open(make_dataset("may")))
    check_same_data(saved, Dataset.open(make_dataset("copy")), resuming=True)
    with pytest.raises(DataError, match=r"files.train/: \w{8} -> \w{8}; files.validation/"):
        check_same_data(saved, Dataset.open(make_dataset("june", seed=1)), resuming=True)


def test_a_checkpoint_of_an_older_version_is_warned_of(
    without_ids: Callable[..., Dataset], caplog: pytest.LogCaptureFixture
) -> None:
    dataset = without_ids("may")
    saved = {name: value for name, value in data_identity(dataset).items() if name not in ("files", "numbers")}
    check_same_ids(saved, dataset)
    assert "the checkpoint is of an older version" in caplog.text
    assert saved_numbers(saved, dataset) == {}


def test_numbers_are_scaled_as_the_model_learned_them(make_dataset: Callable[..., Path]) -> None:
    may = Dataset.open(make_dataset("may", numbers=("price",)))
    saved = data_identity(may)
    other = Dataset.open(make_dataset("other", seed=1, numbers=("price", "stock")))
    assert saved_numbers(saved, other) == {"price": may.numbers["price"]} != {"price": other.numbers["price"]}
