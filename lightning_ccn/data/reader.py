"""Reads Parquet files as `PageBatch`es: deterministic, split over ranks, resumable at any global batch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from lightning_ccn.data import page_row
from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.collate import Collator
from lightning_ccn.data.copy_ahead import copied_ahead
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.parquet import PageRows, decode, open_part
from lightning_ccn.data.ragged import concatenate, take
from lightning_ccn.data.rules import check_columns, check_rows, read_items
from lightning_ccn.data.stream import PageOrder
from lightning_ccn.data.workers import Workers
from lightning_ccn.errors import DataError


class PageBatches(TorchDataset[PageBatch]):
    """One rank's slices of a split's global batches, indexed by (epoch, step).

    A global batch is what all ranks together train on in one step.

    Args:
        dataset: An open dataset folder.
        split: `train`, `validation` or `test`.
        batch_pages: Number of pages of a global batch.
        short_length: How many of the most recent short behaviours are kept.
        long_length: How many of the most recent long behaviours are kept for each category on the page.
        lanes: Upper bound of the world size, see `PageOrder`.
        seed: Seed of the page order of each epoch; None keeps the order of the files.
        with_clicks: Whether to read clicks; False for a split without them.
        rank: This process's rank.
        world_size: Number of ranks.

    Raises:
        DataError: The split is empty, a file of it is truncated, or a column is missing or has a wrong type; or there
            are more ranks than lanes.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        *,
        batch_pages: int,
        short_length: int,
        long_length: int,
        lanes: int = 64,
        seed: int | None = None,
        with_clicks: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.dataset = dataset
        self.columns = needed_columns(dataset, with_clicks)
        self.rank, self.world_size = rank, world_size
        check_columns(dataset, split, self.columns)
        self.pages_digest = dataset.fingerprint(split)
        self.parts = dataset.parts(split)
        row_groups = []
        for part, path in enumerate(self.parts):
            metadata = pq.read_metadata(path)
            row_groups += [(part, g, metadata.row_group(g).num_rows) for g in range(metadata.num_row_groups)]
        if not sum(rows for *_, rows in row_groups):
            raise DataError(f"{dataset.folder / split}: no page views in this split")
        self.row_groups = [(part, group) for part, group, _ in row_groups]
        self.order = PageOrder(np.array([rows for *_, rows in row_groups]), batch_pages, lanes, seed)
        self.order.lanes_of(rank, world_size)  # raises for too many ranks here rather than in a worker
        self._capacity = len(self.order.lanes_of(rank, world_size)) + 2
        self._decoded: OrderedDict[int, PageRows] = OrderedDict()  # row groups in use, the most recently used last
        self.collator = Collator(
            dataset.schema, read_items(dataset), dataset.numbers, short_length=short_length, long_length=long_length
        )

    def __len__(self) -> int:
        """Number of global batches of an epoch; the same on every rank."""
        return self.order.steps

    @property
    def stream(self) -> dict[str, Any]:
        """Everything that the order of the pages is a function of: a position in another stream means other pages."""
        return {
            "data.batch_pages": self.order.lanes * self.order.lane_pages,
            "data.lanes": self.order.lanes,
            "data.seed": self.order.seed,
            "training pages": self.pages_digest,
        }

    def __getitem__(self, at: tuple[int, int]) -> PageBatch:
        """This rank's slice of a global batch; `at` is (epoch, step)."""
        epoch, step = at
        pieces = self.order.pages(epoch, step, self.rank, self.world_size) or [(0, np.zeros(0, np.int64))]
        groups = [(self.row_group(number), rows) for number, rows in pieces]
        return self.collator(
            {name: concatenate([take(group[name], rows) for group, rows in groups]) for name in self.columns}
        )

    def row_group(self, number: int) -> PageRows:
        """The decoded and checked page rows of one row group.

        Args:
            number: Number of the row group in the split, counted across its files in the order of their names.

        Raises:
            DataError: The file is corrupt, or a value breaks a rule of `rules`.
        """
        if number not in self._decoded:
            part, within = self.row_groups[number]
            path = self.parts[part]
            with open_part(path) as file:
                rows = decode(file, within, self.columns)
                first = sum(file.metadata.row_group(g).num_rows for g in range(within))
            check_rows(self.dataset.schema, rows, path, first)  # rejects bad ids here rather than in a GPU kernel
            self._decoded[number] = rows
            if len(self._decoded) > self._capacity:
                self._decoded.popitem(last=False)
        self._decoded.move_to_end(number)
        return self._decoded[number]


class PageLoader:
    """Iterates over one epoch's slices, with a position that Lightning saves and restores.

    The position counts the batches that were handed out, not those that workers have prefetched.

    Args:
        batches: The slices to iterate over.
        workers: Number of worker processes that decode and collate; 0 does it in this process.
        gpu: The GPU on which to hand the batches out, see `copy_ahead`; None for batches in the host's memory.
    """

    def __init__(self, batches: PageBatches, workers: int = 0, gpu: torch.device | None = None) -> None:
        self.batches = batches
        self.workers = workers
        self.gpu = gpu
        self.sampler = GlobalSteps(len(batches))
        self.batch_sampler = None  # Lightning reads it of every loader with a sampler
        self._done = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[PageBatch]:
        """The batches from the position on.

        Raises:
            DataError: A file is corrupt, or a value breaks a rule of `rules`.
            TrainingError: A worker ended.
        """
        # A generator, because Lightning calls iter() before it restores the position and sets the epoch.
        self._done = self.sampler.start
        batches = self._batches(list(self.sampler))
        for batch in batches if self.gpu is None else copied_ahead(batches, self.gpu):
            self._done += 1
            yield batch

    def _batches(self, steps: list[tuple[int, int]]) -> Iterator[PageBatch]:
        if not self.workers:
            yield from (self.batches[at] for at in steps)
            return
        with Workers(self.batches, steps, self.workers) as workers:
            yield from workers

    def state_dict(self) -> dict[str, Any]:
        """The position in the stream of global batches; the same on every rank and for every world size."""
        return {"epoch": self.sampler.epoch, "step": self._done, "stream": self.batches.stream}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues at a saved position; after a complete epoch, with the next epoch.

        Raises:
            DataError: It is a position in another stream, where it would repeat some pages and never reach others.
        """
        here, saved = self.batches.stream, state.get("stream", {})  # a checkpoint of 0.1.0 does not say
        if differ := [f"{name} was {saved[name]}, and is {here[name]}" for name in saved if saved[name] != here[name]]:
            raise DataError(
                "the checkpoint's position is one in another stream of pages: "
                + "; ".join(differ)
                + ". Continue with the same data and options, or start a new run from the weights with --finetune"
            )
        over = state["step"] >= len(self)
        self.sampler.epoch = state["epoch"] + int(over)
        self.sampler.start = 0 if over else state["step"]


class GlobalSteps(Sampler[tuple[int, int]]):
    """Yields (epoch, step) of one epoch's global batches, from step `start` on. Lightning calls `set_epoch`."""

    def __init__(self, steps: int) -> None:
        self.steps, self.epoch, self.start = steps, 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Moves to the first batch of another epoch; does nothing for the current epoch."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(self.epoch, step) for step in range(self.start, self.steps)])

    def __len__(self) -> int:
        return self.steps - self.start


def needed_columns(dataset: Dataset, with_clicks: bool = True) -> list[str]:
    """The columns that `PageBatches` reads; never the probabilities of a synthetic world."""
    names = [page_row.PAGE_ID, page_row.TRIGGER, page_row.ITEMS, page_row.SHORT_ITEMS, page_row.LONG_ITEMS]
    names += [feature.name for feature in dataset.schema.user]
    names += dataset.schema.numbers
    return [*names, page_row.CLICKS] if with_clicks else names
