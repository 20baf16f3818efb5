"""Several processes that read for one rank."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.parquet import PageRows
from lightning_ccn.data.reader import PageBatches, PageLoader
from lightning_ccn.data.ready_pages import Blocks
from lightning_ccn.errors import DataError, TrainingError
from tests.data.stats import accept_changes


class Counting(PageBatches):
    """Counts how often each row group is decoded."""

    decoded: Counter[int]

    def row_group(self, number: int) -> PageRows:
        self.decoded[number] += 1
        return super().row_group(number)


class Slow(Counting):
    """Takes its time, so that it can be stopped before its end."""

    def blocks(self, at: tuple[int, int], share: int = 0, shares: int = 1) -> Blocks:
        time.sleep(0.05)
        return super().blocks(at, share, shares)


def reader_of(folder: Path, batch_pages: int = 8, kind: type[Counting] = Counting) -> Counting:
    made = kind(Dataset.open(folder), "train", batch_pages=batch_pages, short_length=3, long_length=2, seed=1)
    made.decoded = Counter()
    return made


def children_of(pid: int) -> list[int]:
    """The processes that a process has started and that have not ended."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def many_row_groups(make_dataset: Callable[..., Path]) -> Path:
    """16 row groups of 6 page views."""
    folder = make_dataset(pages={"train": 96, "validation": 2, "test": 2})
    [part] = (folder / "train").glob("*.parquet")
    pq.write_table(pq.read_table(part), part, row_group_size=6)
    accept_changes(folder)
    return folder


def test_every_batch_is_that_of_one_reader(many_row_groups: Path) -> None:
    alone = list(PageLoader(reader_of(many_row_groups)))
    for workers in (1, 2, 4):
        shared = list(PageLoader(reader_of(many_row_groups), workers=workers))
        for own, theirs in zip(alone, shared, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(own.tensors(), theirs.tensors(), strict=True))


@pytest.mark.parametrize("shares", [1, 2, 4])
def test_a_row_group_is_decoded_once_in_an_epoch(many_row_groups: Path, shares: int) -> None:
    total: Counter[int] = Counter()
    for share in range(shares):
        reader = reader_of(many_row_groups)
        for step in range(len(reader)):
            reader.blocks((0, step), share, shares)
        assert set(reader.decoded.values()) == {1}
        total += reader.decoded
    assert len(total) == 16
    assert total.total() <= 16 + shares - 1  # two shares may meet within a row group


def test_a_reader_that_is_killed_ends_the_training_in_words(many_row_groups: Path) -> None:
    before = children_of(os.getpid())  # other tests' processes
    batches = iter(PageLoader(reader_of(many_row_groups, batch_pages=2, kind=Slow), workers=3))
    next(batches)
    [collating] = set(children_of(os.getpid())) - set(before)
    readers = children_of(collating)
    assert len(readers) == 2
    os.kill(readers[1], signal.SIGKILL)
    with pytest.raises(TrainingError, match="was killed by SIGKILL"):
        list(batches)


def test_readers_end_with_the_loop(many_row_groups: Path) -> None:
    before = children_of(os.getpid())
    batches = iter(PageLoader(reader_of(many_row_groups, batch_pages=2, kind=Slow), workers=3))
    list(islice(batches, 2))
    [collating] = set(children_of(os.getpid())) - set(before)
    readers = children_of(collating)
    assert len(readers) == 2
    del batches
    end = time.monotonic() + 20
    while (alive := [pid for pid in (collating, *readers) if Path(f"/proc/{pid}").exists()]) and time.monotonic() < end:
        time.sleep(0.01)
    assert alive == []


def test_a_bad_value_is_named_whoever_reads_it(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset()
    part = next((folder / "train").glob("*.parquet"))
    pages = pq.read_table(part).to_pylist()
    pages[-1]["trigger"] = 10**6
    pq.write_table(pa.Table.from_pylist(pages, schema=pq.read_schema(part)), part)
    accept_changes(folder)
    with pytest.raises(DataError, match=f"row {len(pages) - 1}, column trigger: 1000000"):
        list(PageLoader(reader_of(folder), workers=3))


def test_more_workers_than_lanes_read_what_one_reads(many_row_groups: Path) -> None:
    def pages(rank: int, workers: int) -> list[list[int]]:
        batches = PageBatches(
            Dataset.open(many_row_groups),
            "train",
            batch_pages=5,  # 5 lanes: 2 of one rank and 3 of the other
            short_length=3,
            long_length=2,
            seed=1,
            rank=rank,
            world_size=2,
        )
        return [batch.page_id.tolist() for batch in PageLoader(batches, workers=workers)]

    for rank in (0, 1):
        assert pages(rank, workers=5) == pages(rank, workers=0)
