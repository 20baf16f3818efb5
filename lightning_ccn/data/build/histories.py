"""Behaviours before a page view: a user's events lie on disk in order, and a page view takes a slice of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from lightning_ccn.data.build.spec import SequenceSpec
from lightning_ccn.data.ragged import Ragged, ranges

DAY = 86_400  # seconds
ACT = np.dtype([("item", "<i4"), ("sec", "<u4")])  # 8 bytes an event


class Histories:
    """Events of all users in a file, a user's own beside each other and oldest first.

    Memory: 8 bytes a user; of the file, only what is read. So neither a user with a million events nor a page view
    costs more than the behaviours that it gets.

    Args:
        path: File to write; beside it, a file of the same name that ends in .npy says whose events begin where.
        users: Number of users.
        events: The events in batches with the columns user_no (from 1), item (a row) and sec (seconds since 1970), in
            order of user_no, then of time, oldest first.
    """

    def __init__(self, path: Path, users: int, events: Iterator[pa.RecordBatch]) -> None:
        begin = path.with_suffix(".npy")
        if not begin.is_file():  # else an earlier process has written both
            self._write(path, begin, users, events)
        self._begin = np.load(begin)  # of the events of each user_no
        self.events = int(self._begin[-1])
        self._acts = np.memmap(path, ACT, "r") if self.events else np.zeros(0, ACT)

    def _write(self, path: Path, begin: Path, users: int, events: Iterator[pa.RecordBatch]) -> None:
        counts = np.zeros(users + 1, np.int64)
        with open(path, "wb") as file:
            for batch in events:
                acts = np.empty(batch.num_rows, ACT)
                acts["item"], acts["sec"] = batch["item"].to_numpy(), batch["sec"].to_numpy()
                acts.tofile(file)
                own = batch["user_no"].to_numpy()
                first = int(own[0])  # the batch holds a few users, in order
                few = np.bincount(own - first)
                counts[first : first + len(few)] += few
        part = begin.with_name(f"_{begin.name}")
        np.save(part, np.concatenate([[0], np.cumsum(counts)]))
        os.replace(part, begin)

    def before(self, users: np.ndarray, seconds: np.ndarray, spec: SequenceSpec) -> tuple[Ragged, Ragged]:
        """The last events of page views, strictly before their second.

        Args:
            users: Int64 [pages], user_no of each page's user.
            seconds: Int64 [pages], time of each page.
            spec: How many, and of how many days.

        Returns:
            Item rows and times, each a list [pages], oldest first.
        """
        begin, end = self._begin[users], self._begin[users + 1]
        last = self._place(begin, end, seconds)
        if spec.days is not None:
            begin = self._place(begin, last, seconds - spec.days * DAY)
        first = np.maximum(begin, last - spec.length)
        acts, lengths = self._acts[ranges(first, last - first)], last - first
        return (
            Ragged.from_lengths(acts["item"].astype(np.int64), lengths),
            Ragged.from_lengths(acts["sec"].astype(np.int64), lengths),
        )

    def _place(self, begin: np.ndarray, end: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """The place of the first event at or after a second, among those from `begin` to before `end`; all [pages]."""
        low, high = begin.copy(), end.copy()
        while (open_ := low < high).any():
            middle = np.where(open_, (low + high) // 2, 0)
            earlier = np.zeros(len(middle), bool)
            earlier[open_] = self._acts["sec"][middle[open_]] < seconds[open_]
            low = np.where(open_ & earlier, middle + 1, low)
            high = np.where(open_ & ~earlier, middle, high)
        return low
