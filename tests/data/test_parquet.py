"""Which files of a split are its parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.check.check import check
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.parquet import OpenParts, parts_of
from lightning_ccn.data.reader import PageBatches
from lightning_ccn.errors import DataError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_parts_are_read_from_subfolders_in_the_order_of_their_paths(tmp_path: Path) -> None:
    touch(tmp_path, "day=2/part-0.snappy.parquet", "day=1/hour=3/part-9.parquet", "day=1/part-1.parquet", "a.parquet")
    assert [path.relative_to(tmp_path).as_posix() for path in parts_of(tmp_path)] == [
        "a.parquet",
        "day=1/hour=3/part-9.parquet",
        "day=1/part-1.parquet",
        "day=2/part-0.snappy.parquet",
    ]


def test_what_spark_leaves_beside_the_parts_and_a_missing_split_are_no_parts(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "_SUCCESS",
        ".part-0.parquet.crc",
        "part-0.parquet.crc",
        "_temporary/0/x.parquet",
        ".tmp/y.pq",
        "README.md",
    )
    assert parts_of(tmp_path) == parts_of(tmp_path / "nowhere") == []


@pytest.mark.parametrize("name", ["part-0.pq", "day=1/part.csv", "part-0.PARQUET", "part-0.parquet.gz", "part-00000"])
def test_a_file_that_would_not_be_read_is_refused_by_name(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "part-1.parquet", name)
    with pytest.raises(DataError) as error:
        parts_of(tmp_path)
    assert str(error.value) == (
        f"{tmp_path / name}: not read, because its name does not end in .parquet; write Parquet files whose names end "
        "in .parquet, or begin the name with _ to leave it out"
    )


def test_a_file_in_place_of_a_split_and_a_link_in_a_circle_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "train", "test/part-0.parquet")
    with pytest.raises(DataError, match=r"train: is a file; a split is a folder of \.parquet files"):
        parts_of(tmp_path / "train")
    (tmp_path / "test" / "again").symlink_to(tmp_path / "test")
    with pytest.raises(DataError, match=r"test/again: a link to a folder whose files are read already"):
        parts_of(tmp_path / "test")


def test_check_and_reader_take_the_same_parts(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(pages={"train": 40, "validation": 10, "test": 10})
    part = folder / "train" / "part-00000.parquet"
    table = pq.read_table(part)
    (folder / "train" / "day=2").mkdir()
    pq.write_table(table.slice(30), folder / "train" / "day=2" / "part-00000.parquet")
    pq.write_table(table.slice(0, 30), part)
    assert check(folder, write_stats=True).splits["train"].pages == 40
    batches = PageBatches(Dataset.open(folder), "train", batch_pages=8, short_length=3, long_length=3)
    assert sum(len(batches[0, step].page_id) for step in range(len(batches))) == 40

    part.rename(part.with_suffix(".pq"))
    (error,) = check(folder).errors
    assert error.startswith(f"{part.with_suffix('.pq')}: not read, because its name does not end in .parquet")
    with pytest.raises(DataError, match=r"part-00000\.pq: not read"):
        PageBatches(Dataset.open(folder), "train", batch_pages=8, short_length=3, long_length=3)


def test_folders_and_parts_beside_the_splits_are_warned_of(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(pages={"train": 20, "validation": 10, "test": 10})
    touch(folder, "valid/part-0.parquet", "part-0.parquet", "_logs/x", ".git/config", "notes.txt")
    assert check(folder).warnings == [
        f"{folder}/{name}: not read; page views are read from train/, validation/, test/"
        for name in ("part-0.parquet", "valid")
    ]


def test_parts_stay_open_up_to_a_number_of_them(make_dataset: Callable[..., Path]) -> None:
    parts = sorted(make_dataset().glob("*/*.parquet"))[:3]
    opened = OpenParts(most=2)

    def files() -> list[pq.ParquetFile]:
        found = []
        for path in parts:
            with opened(path) as file:
                found.append(file)
        return found

    first, second, third = files()
    assert [file.closed for file in (first, second, third)] == [True, False, False]
    with opened(parts[1]) as again:
        assert again is second
    parts[0].write_bytes(b"cut off")
    with pytest.raises(DataError, match="not a complete Parquet file; write it again"):
        files()
