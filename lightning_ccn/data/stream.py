"""The order of page views: a pure function of (seed, epoch, step), independent of the world size.

An epoch is a sequence of global batches of `batch_pages` page views each. Every rank takes its slice of each global
batch. So a run that stopped on N ranks can continue on M ranks, and sees every page exactly once.

An epoch is cut into *lanes*, so that a rank decodes only the row groups that it needs. The row groups are put in the
epoch's order, and their pages are cut into `lanes` contiguous stretches of equal length. Each global batch takes the
next `batch_pages / lanes` pages of every lane, and each rank owns consecutive lanes. A global batch thus mixes pages
from as many places of the data as there are lanes, and a page stays in its lane when the world size changes.
"""

from __future__ import annotations

import numpy as np

from lightning_ccn.errors import DataError


class PageOrder:
    """The pages of each global batch.

    Args:
        row_groups: Int [row groups], number of pages in each Parquet row group, in file order.
        batch_pages: Number of pages of a global batch.
        lanes: Upper bound of the number of lanes, and so of the world size. The number used is the largest divisor of
            `batch_pages` up to this.
        seed: Seed of the order; None keeps the order of the files.

    Raises:
        DataError: `batch_pages` is less than 1.

    >>> order = PageOrder(np.array([4, 4]), batch_pages=4, lanes=2, seed=None)
    >>> order.steps
    2
    >>> order.stretches(epoch=0, step=1, rank=0, world_size=1)  # rows 2 and 3 of either row group
    [(0, 2, 4), (1, 2, 4)]
    """

    def __init__(self, row_groups: np.ndarray, batch_pages: int, lanes: int, seed: int | None) -> None:
        if batch_pages < 1:
            raise DataError(f"batch_pages is {batch_pages}: a global batch needs at least one page")
        self.row_groups = np.asarray(row_groups, dtype=np.int64)
        self.most_lanes = lanes
        self.lanes = max(n for n in range(1, min(lanes, batch_pages) + 1) if batch_pages % n == 0)
        self.lane_pages = batch_pages // self.lanes  # pages per lane and global batch
        self.seed = seed
        total = int(self.row_groups.sum())
        self.bounds = total * np.arange(self.lanes + 1) // self.lanes  # lane l: pages bounds[l] .. bounds[l + 1]
        self.steps = -(-int(np.diff(self.bounds).max(initial=0)) // self.lane_pages)
        self._epoch: tuple[int, np.ndarray, np.ndarray] | None = None

    def lanes_of(self, rank: int, world_size: int) -> range:
        """The lanes that a rank owns.

        Raises:
            DataError: There are more ranks than lanes.
        """
        if world_size > self.lanes:
            raise DataError(
                f"{world_size} ranks cannot share a global batch of {self.lanes * self.lane_pages} pages: make "
                f"data.batch_pages a multiple of {world_size}"
                + (f", and data.lanes {world_size} or more" if world_size > self.most_lanes else "")
            )
        return range(self.lanes * rank // world_size, self.lanes * (rank + 1) // world_size)

    def stretches(self, epoch: int, step: int, rank: int, world_size: int) -> list[tuple[int, int, int]]:
        """A rank's slice of one global batch: (row group, begin, end), in order.

        `begin` and `end` are places in `rows_of` that row group. The slice may be smaller or empty in the last steps of
        an epoch, when lanes have run out of pages.

        Raises:
            DataError: There are more ranks than lanes.
        """
        groups, starts = self._order(epoch)
        lanes = self.lanes_of(rank, world_size)
        bounds = self.bounds[lanes.start : lanes.stop + 1]
        begins = bounds[:-1] + step * self.lane_pages
        ends = np.minimum(begins + self.lane_pages, bounds[1:])
        places = np.searchsorted(starts, begins, side="right") - 1
        found = []
        for begin, end, at in zip(begins.tolist(), ends.tolist(), places.tolist(), strict=True):
            place = at
            while begin < end:
                start, stop = int(starts[place]), min(end, int(starts[place + 1]))
                found.append((int(groups[place]), begin - start, stop - start))
                begin, place = stop, place + 1
        return found

    def rows_of(self, epoch: int, group: int) -> np.ndarray | None:
        """The rows of a row group in the order in which an epoch reads them: int64 [pages]; None for the file's own."""
        if self.seed is None:
            return None
        return np.random.default_rng([self.seed, epoch, group]).permutation(int(self.row_groups[group]))

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        if self._epoch is None or self._epoch[0] != epoch:
            groups = np.flatnonzero(self.row_groups)
            if self.seed is not None:
                groups = np.random.default_rng([self.seed, epoch]).permutation(groups)
            starts = np.concatenate([[0], np.cumsum(self.row_groups[groups])])
            self._epoch = (epoch, groups, starts)
        return self._epoch[1], self._epoch[2]
