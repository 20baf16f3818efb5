"""Frozen vectors of items: the reader refuses what a check lists."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lightning_ccn.data.check.check import check
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.reader import PageBatches
from lightning_ccn.errors import DataError
from tests.data.stats import accept_changes

Make = Callable[..., Path]
Damage = Callable[[Path], str]


def changed(row: int, value: float) -> Damage:
    def damage(path: Path) -> str:
        vectors = np.load(path)
        vectors[row, 1] = value
        np.save(path, vectors)
        return "row 0: is not zeros; write zeros" if row == 0 else f"row {row}: has a value that is not finite; write"

    return damage


def removed(path: Path) -> str:
    path.unlink()
    return "missing, but vectors of schema.yaml has 'image'; write it with numpy.save as float32 [61, 3], row 0 zeros"


def too_short(path: Path) -> str:
    np.save(path, np.load(path)[:60])
    return "is [60, 3]; write it with numpy.save as float32 [61, 3]"


def doubles(path: Path) -> str:
    np.save(path, np.load(path).astype(np.float64))
    return "is float64; write it with numpy.save as float32"


def cut_off(path: Path) -> str:
    path.write_bytes(path.read_bytes()[:200])
    return "cannot be read as one array: "


def no_array(path: Path) -> str:
    path.write_bytes(b"image")
    return "cannot be read as one array: "


def a_header_that_does_not_close(path: Path) -> str:
    path.write_bytes(path.read_bytes().replace(b"}", b" ", 1))
    return "cannot be read as one array: "


@pytest.mark.parametrize(
    "damage",
    [
        changed(7, np.nan),
        changed(8, np.inf),
        changed(0, 1.0),
        removed,
        too_short,
        doubles,
        cut_off,
        no_array,
        a_header_that_does_not_close,
    ],
    ids=["nan", "inf", "row_0", "removed", "too_short", "doubles", "cut_off", "no_array", "header"],
)
def test_vectors_that_are_not_one_row_an_item_are_errors(make_dataset: Make, damage: Damage) -> None:
    folder = make_dataset()
    path = folder / "vectors" / "image.npy"
    expected = f"{path}: {damage(path)}"
    accept_changes(folder)
    errors = check(folder).errors
    assert len(errors) == 1 and errors[0].startswith(expected) and "\n" not in errors[0]
    if "row 0" not in expected:
        with pytest.raises(DataError, match=re.escape(expected.removeprefix(f"{folder}/"))):
            [*read(folder)]


def read(folder: Path) -> list[object]:
    batches = PageBatches(Dataset.open(folder), "train", batch_pages=96, short_length=5, long_length=5)
    return [batches[0, 0]]


def test_items_without_a_vector_are_counted_and_files_of_no_schema_are_warned_of(make_dataset: Make) -> None:
    folder = make_dataset()
    path = folder / "vectors" / "image.npy"
    vectors = np.load(path).astype(np.float16)
    vectors[5:9] = 0
    np.save(path, vectors)
    np.save(folder / "vectors" / "sound.npy", vectors)
    accept_changes(folder)
    report = check(folder)
    assert report.errors == [] and report.notes == ["vectors image: 4 of 60 items have none"]
    assert report.warnings == [
        f"{folder}/vectors/sound.npy: not read, because schema.yaml has no vectors 'sound'",
    ]


def test_vectors_that_changed_after_the_counts_are_other_data(make_dataset: Make) -> None:
    folder = make_dataset()
    changed(7, 2.5)(folder / "vectors" / "image.npy")
    with pytest.raises(DataError, match=r"vectors/image.npy was changed after stats.json was written"):
        Dataset.open(folder)


def test_a_batch_has_the_vectors_of_its_items_and_the_file_stays_where_it_is(dataset: Path) -> None:
    batches = PageBatches(Dataset.open(dataset), "train", batch_pages=96, short_length=5, long_length=5)
    stored = batches.collator.vectors["image"]
    assert isinstance(stored, np.memmap)  # which workers share
    batch = batches[0, 0]
    assert batch.vectors is not None
    np.testing.assert_array_equal(batch.vectors, stored[batch.item["item"].values()])
