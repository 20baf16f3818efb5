"""Parquet -> `PageBatch`: deterministic, sharded over ranks, resumable at any global batch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from lightning_ccn.data import page_row
from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.collate import Collator
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.parquet import PageRows, decode, open_part
from lightning_ccn.data.ragged import concatenate, take
from lightning_ccn.data.rules import check_columns, check_rows, read_items
from lightning_ccn.data.stream import PageOrder
from lightning_ccn.errors import DataError


class PageBatches(TorchDataset[PageBatch]):
    """A rank's slices of a split's global batches, by (epoch, step).

    Args:
        dataset: an open dataset folder.
        split: train, validation or test.
        batch_pages: pages of a global batch.
        short_length: most recent short behaviours kept.
        long_length: most recent long behaviours kept of each category on the page.
        lanes: see `PageOrder`.
        seed: of the epochs' orders; None keeps the order of the files.
        with_clicks: read clicks; False for a split that has none.
        rank, world_size: whose slice.

    Raises:
        DataError: the split is empty, or a part lacks a column, is truncated or holds a wrong type.
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
        self.parts = dataset.parts(split)
        row_groups = []
        for part, path in enumerate(self.parts):
            metadata = pq.read_metadata(path)
            row_groups += [(part, g, metadata.row_group(g).num_rows) for g in range(metadata.num_row_groups)]
        if not sum(rows for *_, rows in row_groups):
            raise DataError(f"{dataset.folder / split}: no page views; this split is needed here")
        self.row_groups = [(part, group) for part, group, _ in row_groups]
        self.order = PageOrder(np.array([rows for *_, rows in row_groups]), batch_pages, lanes, seed)
        self.order.lanes_of(rank, world_size)  # refuses too many ranks now, not in a worker
        self._capacity = len(self.order.lanes_of(rank, world_size)) + 2
        self._decoded: OrderedDict[int, PageRows] = OrderedDict()  # row groups in use, most recent last
        self.collator = Collator(
            dataset.schema, read_items(dataset), dataset.numbers, short_length=short_length, long_length=long_length
        )

    def __len__(self) -> int:
        """Global batches of an epoch; the same on every rank."""
        return self.order.steps

    def __getitem__(self, at: tuple[int, int]) -> PageBatch:
        """This rank's slice of global batch `step` of epoch `epoch`, `at` = (epoch, step)."""
        epoch, step = at
        pieces = self.order.pages(epoch, step, self.rank, self.world_size)
        rows = [(self._rows(group), within) for group, within in pieces] or [(self._rows(0), np.zeros(0, np.int64))]
        return self.collator(
            {name: concatenate([take(piece[name], within) for piece, within in rows]) for name in self.columns}
        )

    def _rows(self, group: int) -> PageRows:
        if group not in self._decoded:
            part, number = self.row_groups[group]
            path = self.parts[part]
            with open_part(path) as file:
                rows = decode(file, number, self.columns)
                first = sum(file.metadata.row_group(g).num_rows for g in range(number))
            check_rows(self.dataset.schema, rows, path, first)  # ids outside a table end here, not in a kernel
            self._decoded[group] = rows
            if len(self._decoded) > self._capacity:
                self._decoded.popitem(last=False)
        self._decoded.move_to_end(group)
        return self._decoded[group]


class PageLoader:
    """Iterates an epoch's slices, and remembers the global position: Lightning saves and restores it by itself.

    The position counts batches handed out, not those that workers have made ahead.

    Args:
        batches: what to iterate.
        workers: processes that decode and collate; 0: in this process.
        pin_memory: put batches into page-locked memory (for a GPU).
    """

    def __init__(self, batches: PageBatches, workers: int = 0, pin_memory: bool = False) -> None:
        self.batches = batches
        self.sampler = GlobalSteps(len(batches))
        self.batch_sampler = None  # Lightning asks for it wherever there is a sampler
        self._loader = DataLoader(
            batches,
            sampler=self.sampler,
            batch_size=None,
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=_one_thread,
        )
        self._done = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[PageBatch]:
        # A generator: Lightning calls iter() before it restores the position and the epoch
        self._done = self.sampler.start
        try:
            for batch in self._loader:
                self._done += 1
                yield batch
        except DataError as error:  # a worker's error comes wrapped in its traceback
            raise DataError(str(error).rsplit("DataError: ", 1)[-1].strip()) from None

    def state_dict(self) -> dict[str, Any]:
        """The global position: the same on every rank and for every world size."""
        return {"epoch": self.sampler.epoch, "step": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on at a saved position; an epoch saved at its end goes on with the next one."""
        over = state["step"] >= len(self)
        self.sampler.epoch = state["epoch"] + int(over)
        self.sampler.start = 0 if over else state["step"]


class GlobalSteps(Sampler[tuple[int, int]]):
    """(epoch, step) of an epoch's global batches from `start` on. Lightning calls `set_epoch`."""

    def __init__(self, steps: int) -> None:
        self.steps, self.epoch, self.start = steps, 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Another epoch starts at its first batch; naming the present one changes nothing."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(self.epoch, step) for step in range(self.start, self.steps)])

    def __len__(self) -> int:
        return self.steps - self.start


def needed_columns(dataset: Dataset, with_clicks: bool = True) -> list[str]:
    """Columns of a page row that a model's batch is made of; nothing that only a synthetic world knows."""
    names = [page_row.PAGE_ID, page_row.TRIGGER, page_row.ITEMS, page_row.SHORT_ITEMS, page_row.LONG_ITEMS]
    names += [feature.name for feature in dataset.schema.user]
    names += dataset.schema.numbers
    return [*names, page_row.CLICKS] if with_clicks else names


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
