"""Reads Parquet files as `PageBatch`es: deterministic, split over ranks, resumable at any global batch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from lightning_ccn.data import page_row
from lightning_ccn.data.batch import PackedBatch, PageBatch
from lightning_ccn.data.collate import Collator
from lightning_ccn.data.copy_ahead import announced_ahead, copied_ahead
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.item_vectors import open_vectors
from lightning_ccn.data.orders import unclicked_orders
from lightning_ccn.data.parquet import OpenParts, PageRows, decode
from lightning_ccn.data.ready_pages import Blocks, ReadyPages, joined
from lightning_ccn.data.rules import check_columns, check_rows, read_items
from lightning_ccn.data.shared_reading import SharedReading
from lightning_ccn.data.stream import PageOrder
from lightning_ccn.data.workers import Batches, Workers
from lightning_ccn.errors import DataError

CPU = torch.device("cpu")


class PageBatches(TorchDataset[PageBatch]):
    """One rank's slices of a split's global batches, indexed by (epoch, step).

    A global batch is what all ranks together train on in one step.

    Args:
        dataset: An open dataset folder.
        split: `train`, `validation` or `test`.
        batch_pages: Number of pages of a global batch.
        short_length: How many of the most recent short behaviours are kept.
        long_length: How many of the most recent long behaviours are kept for each category on the page; 0 leaves them
            out.
        lanes: Upper bound of the world size, see `PageOrder`.
        seed: Seed of the page order of each epoch; None keeps the order of the files.
        with_clicks: Whether to read clicks; False for a split without them.
        with_gaps: Whether to read the times of the behaviours, for `PageBatch.short_gap` and `long_gap`.
        with_orders: Whether to read which items were bought, for `PageBatch.orders`.
        rank: This process's rank.
        world_size: Number of ranks.

    Raises:
        DataError: The split is empty, a file of it is truncated, or a column is missing or has a wrong type; or there
            are more ranks than lanes.
        OptionError: The folder is cut to fewer long behaviours than `long_length`.
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
        with_gaps: bool = False,
        with_orders: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        dataset.schema.refuse_longer_search(long_length, dataset.folder)
        self.dataset = dataset
        of_long = (page_row.LONG_ITEMS, page_row.LONG_TIMES)
        columns = needed_columns(dataset, with_clicks, with_gaps, with_orders)
        self.columns = [name for name in columns if long_length or name not in of_long]
        self.rank, self.world_size = rank, world_size
        self.learned = split == "train"
        self.parts = dataset.parts(split)
        rows = check_columns(dataset, split, self.columns)  # [parts][row groups]
        self.pages_digest = dataset.fingerprint(split)
        if not sum(map(sum, rows)):
            raise DataError(f"{dataset.folder / split}: no page views in this split")
        # (part, number in the part, first row in the part) of each row group
        self.row_groups = [
            (part, group, first)
            for part, of_part in enumerate(rows)
            for group, first in zip(range(len(of_part)), accumulate(of_part, initial=0), strict=False)
        ]
        self.order = PageOrder(np.array([size for of_part in rows for size in of_part]), batch_pages, lanes, seed)
        self.lanes = len(self.order.lanes_of(rank, world_size))  # raises for too many ranks here, not in a worker
        # A lane reads one row group at a time. It keeps its first one too, whose other pages are the end of the lane
        # before it.
        self._capacity = 2 * self.lanes + 2
        self._ready: OrderedDict[tuple[int, int], ReadyPages] = OrderedDict()  # the most recently used last
        self._open = OpenParts(self.lanes + 1)
        self.collator = Collator(
            dataset.schema,
            read_items(dataset),
            dataset.numbers,
            short_length=short_length,
            long_length=long_length,
            vectors=open_vectors(dataset.folder, dataset.schema),
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
        return self.batch(self.blocks(at))

    def batch(self, blocks: Blocks) -> PageBatch:
        """The batch of the pages that `blocks` returned."""
        return self.collator.batch(blocks)

    def blocks(self, at: tuple[int, int], share: int = 0, shares: int = 1) -> Blocks:
        """The pages of a share of this rank's lanes, ready to be collated; the shares, in order, are the slice."""
        epoch, step = at
        stretches = self.order.stretches(epoch, step, self.rank * shares + share, self.world_size * shares)
        # without pages, the blocks are those of no page of any row group
        return joined(self.ready(epoch, group).between(*ends) for group, *ends in stretches or [(0, 0, 0)])

    def ready(self, epoch: int, number: int) -> ReadyPages:
        """The pages of a row group in an epoch's order, ready for batches; see `row_group`."""
        key = (epoch, number)
        if key not in self._ready:
            self._ready[key] = self.collator.prepare(self.row_group(number), self.order.rows_of(epoch, number))
            if len(self._ready) > self._capacity:
                self._ready.popitem(last=False)
        self._ready.move_to_end(key)
        return self._ready[key]

    def row_group(self, number: int) -> PageRows:
        """The decoded and checked page rows of one row group.

        Args:
            number: Number of the row group in the split, counted across its files in the order of their names.

        Raises:
            DataError: The file is corrupt, or a value breaks a rule of `rules`.
        """
        part, group, first = self.row_groups[number]
        path = self.parts[part]
        with self._open(path) as file:
            rows = decode(file, group, self.columns)
        check_rows(self.dataset.schema, rows, path, first)  # rejects bad ids here rather than in a GPU kernel
        if self.learned:  # p(click) p(order | click) cannot describe them; a test may compare p(order) with any order
            for problem in unclicked_orders(rows):
                raise DataError(problem.messages(path, first)[0])
        return rows


class PageLoader:
    """Iterates over one epoch's slices, with a position that Lightning saves and restores.

    The position counts the batches that were handed out, not those that workers have prefetched.

    Args:
        batches: The slices to iterate over.
        workers: Number of worker processes: 0 reads in this process; one reads and collates; of several, one collates
            what the others read.
        gpu: The GPU on which to hand the batches out, see `copy_ahead`; None for batches in the host's memory.
        announce: Called with each batch before the one that precedes it is handed out; None to hand out a batch as soon
            as it is there.
    """

    def __init__(
        self,
        batches: PageBatches,
        workers: int = 0,
        gpu: torch.device | None = None,
        announce: Callable[[PageBatch], None] | None = None,
    ) -> None:
        self.batches = batches
        self.workers = workers
        self.gpu = gpu
        self.announce = announce
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
        read = self._batches(list(self.sampler))
        batches = (batch.to(CPU) for batch in read) if self.gpu is None else copied_ahead(read, self.gpu)
        if self.announce is not None:
            batches = announced_ahead(batches, self.announce)
        for batch in batches:
            self._done += 1
            yield batch

    def _batches(self, steps: list[tuple[int, int]]) -> Iterator[PageBatch | PackedBatch]:
        if not self.workers:
            yield from (self.batches[at] for at in steps)
            return
        # no more than the lanes of the rank that has the fewest: a share is the slice of a larger world's rank
        shares = min(self.workers - 1, self.batches.order.lanes // self.batches.world_size)
        batches = SharedReading(self.batches, steps, shares) if shares else self.batches
        with Workers(_InOneBuffer(batches), steps, 1) as workers:
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


class _InOneBuffer:
    """Batches as a worker hands them over."""

    def __init__(self, batches: Batches[tuple[int, int], PageBatch]) -> None:
        self._batches = batches

    def __getitem__(self, at: tuple[int, int]) -> PackedBatch:
        return self._batches[at].packed()


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


def needed_columns(
    dataset: Dataset, with_clicks: bool = True, with_gaps: bool = False, with_orders: bool = False
) -> list[str]:
    """The columns that `PageBatches` reads; never the probabilities of a synthetic world."""
    names = [page_row.PAGE_ID, page_row.TRIGGER, page_row.ITEMS, page_row.SHORT_ITEMS, page_row.LONG_ITEMS]
    names += [page_row.TIME, page_row.SHORT_TIMES, page_row.LONG_TIMES] if with_gaps else []
    names += [feature.name for feature in dataset.schema.user]
    names += [*dataset.schema.numbers, *dataset.schema.page_numbers]
    if with_clicks:
        names.append(page_row.CLICKS)
        names += [page_row.POSITIONS] if dataset.schema.position_bias else []
        names += [dataset.schema.weight] if dataset.schema.weight else []
        names += [page_row.PURCHASES] if with_orders else []
    return names
