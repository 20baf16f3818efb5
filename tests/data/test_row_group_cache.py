"""Row groups of a store that are kept on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.parquet import decode, open_part, value_column
from lightning_ccn.data.reader import PageBatches
from lightning_ccn.data.row_group_cache import RowGroupCache
from lightning_ccn.data.store_path import StorePath
from tests.s3_server import S3Server, upload


@pytest.fixture
def part(bucket: StorePath, tmp_path: Path) -> StorePath:
    """A part of two row groups, whose row groups are kept in `tmp_path / "kept"`."""
    pq.write_table(pa.table({"a": [1, 2, 3, 4], "b": [5.0, 6.0, 7.0, 8.0]}), tmp_path / "part", row_group_size=2)
    path = (bucket / "part.parquet").cached_in(tmp_path / "kept")
    path.write(tmp_path / "part")
    return path


def read(part: StorePath, row_group: int, *columns: str) -> dict[str, list[float]]:
    with open_part(part) as file:
        rows = decode(file, row_group, columns)
        return {name: value_column(rows, name).tolist() for name in columns}


def kept(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "kept").rglob("*") if path.is_file())


def test_a_row_group_is_read_from_the_store_once(part: StorePath, s3_server: S3Server, tmp_path: Path) -> None:
    expected = {"b": [7.0, 8.0], "a": [3, 4]}
    assert read(part, 1, "b", "a") == expected
    with open_part(part) as file, s3_server.failing(lambda request, number: "403"):
        assert value_column(decode(file, 1, ["b", "a"]), "a").tolist() == [3, 4]
    assert read(part, 1, "a") == {"a": [3, 4]}, "other columns are another entry"
    assert len(kept(tmp_path)) == 2


def test_a_changed_part_is_read_again_and_its_old_row_groups_are_removed(part: StorePath, tmp_path: Path) -> None:
    assert read(part, 0, "a") == {"a": [1, 2]}
    [before] = kept(tmp_path)
    pq.write_table(pa.table({"a": [1, 2, 3, 4, 9]}), tmp_path / "part", row_group_size=2)
    part.write(tmp_path / "part")
    assert read(part, 2, "a") == {"a": [9]}
    [now] = kept(tmp_path)
    assert now.parent != before.parent


def test_what_a_crash_or_a_bad_disk_has_left_is_not_read(part: StorePath, tmp_path: Path) -> None:
    assert read(part, 0, "a") == {"a": [1, 2]}
    [entry] = kept(tmp_path)
    (entry.parent / f".{entry.name}.1").write_bytes(entry.read_bytes()[:50])  # of a process that was killed
    entry.write_bytes(entry.read_bytes()[:50])
    assert read(part, 0, "a") == {"a": [1, 2]}
    assert pa.ipc.open_file(pa.memory_map(str(entry))).read_all().column("a").to_pylist() == [1, 2]


def test_processes_write_the_same_row_group_at_the_same_time(part: StorePath, tmp_path: Path) -> None:
    table = pa.table({"a": list(range(50_000))})
    children = []
    for _ in range(4):
        if not (child := os.fork()):
            cache = RowGroupCache(tmp_path / "kept", part)
            for _ in range(5):
                cache.put(0, ["a"], table)
                if (found := cache.get(0, ["a"])) is None or not found.equals(table):
                    os._exit(1)
            os._exit(0)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    assert len(kept(tmp_path)) == 1


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(
    part: StorePath, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "kept").write_text("a file")
    with open_part(part) as file:
        for group in (0, 1):
            assert value_column(decode(file, group, ["a"]), "a").tolist() == [1 + 2 * group, 2 + 2 * group]
    assert caplog.text.count("nothing more is kept here: Not a directory; reading goes on from the store") == 1


def test_batches_of_a_store_are_those_of_a_folder(
    dataset: Path, bucket: StorePath, s3_server: S3Server, tmp_path: Path
) -> None:
    upload(dataset, bucket / "data")

    def batches(folder: Path | StorePath, cache: Path | None = None) -> list[list[int]]:
        opened = Dataset.open(folder, cache)
        made = PageBatches(opened, "train", batch_pages=32, short_length=3, long_length=3, seed=1)
        return [made[0, step].page_id.tolist() for step in range(len(made))]

    expected = batches(dataset)
    assert batches(bucket / "data") == expected
    first = len(s3_server.requests)
    assert batches(bucket / "data", tmp_path / "kept") == expected
    then = len(s3_server.requests)
    assert batches(bucket / "data", tmp_path / "kept") == expected
    assert len(s3_server.requests) - then < then - first
