"""Digests of a dataset's files: equal for a copy, another for other pages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.fingerprint import changes, file_digest
from lightning_ccn.data.reader import PageBatches
from lightning_ccn.errors import DataError


def test_a_copy_has_the_same_fingerprint_and_other_pages_another(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    folder, other = make_dataset("one"), make_dataset("other", seed=1)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))  # with times of its own
    one = Dataset.open(folder).fingerprint("train")
    assert Dataset.open(copy).fingerprint("train") == one
    assert Dataset.open(other).fingerprint("train") != one
    assert Dataset.open(folder).fingerprint("test") != one


def test_a_file_without_a_footer_has_a_digest_too(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"abc")
    assert file_digest(tmp_path / "short") == file_digest(tmp_path / "short")
    with pytest.raises(DataError, match="gone: cannot be read: No such file"):
        file_digest(tmp_path / "gone")


def test_changes_are_told_by_file() -> None:
    assert changes({"a": "1", "b": "1"}, {"b": "2", "c": "1"}) == ["a was removed", "b was changed", "c was added"]


def read(folder: Path) -> PageBatches:
    return PageBatches(Dataset.open(folder), "train", batch_pages=8, short_length=5, long_length=5)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("train/part-00000.parquet", "train/part-00000.parquet was changed"),
        ("items.parquet", "items.parquet was changed"),
    ],
)
def test_files_that_changed_after_stats_json_are_refused(
    make_dataset: Callable[..., Path], name: str, told: str
) -> None:
    folder, other = make_dataset("one"), make_dataset("other", seed=1)
    shutil.copy(other / name, folder / name)
    with pytest.raises(DataError, match=f"{told} after stats.json .* --write_stats true"):
        read(folder)


def test_a_part_that_came_later_is_refused(make_dataset: Callable[..., Path]) -> None:
    folder, other = make_dataset("one"), make_dataset("other", seed=1)
    shutil.copy(other / "train" / "part-00000.parquet", folder / "train" / "part-00001.parquet")
    with pytest.raises(DataError, match=r"train/part-00001.parquet was added after stats.json"):
        read(folder)


def test_a_stats_json_of_before_has_no_digests_and_is_read(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset()
    stats = json.loads((folder / "stats.json").read_text())
    del stats["files"]
    (folder / "stats.json").write_text(json.dumps(stats))
    assert len(read(folder))
