"""Sums of page rows by day, and days that no log has: without any click, or later than now."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_ccn.data import page_row
from lightning_ccn.data.check.report import utc
from lightning_ccn.data.check.usage import id_columns
from lightning_ccn.data.parquet import PageRows
from lightning_ccn.data.places import Place
from lightning_ccn.data.ragged import Ragged, row_sums
from lightning_ccn.data.schema import Schema

DAY = 86_400  # seconds; days are those of UTC
EXPECTED = 30  # clicks of neighbouring days, by the rate of the split's other days: without one, that is no chance
SUMS = ("pages", "items", "labelled", "clicks", "with_trigger", "with_short", "with_long")
PAGES, LABELLED, CLICKS = (SUMS.index(name) for name in ("pages", "labelled", "clicks"))


@dataclass
class _Day:
    sums: np.ndarray  # int64 [sums]
    path: Place  # of its first page
    row: int
    time: int


class Days:
    """Counts the pages of each day, what is on them, and the unknown ids of each column. Memory: one row per day."""

    def __init__(self, schema: Schema) -> None:
        self.columns = [feature.name for feature in id_columns(schema)]
        self._needed = {page_row.TIME, *self.columns}  # without one of these, a row group cannot be counted
        self._splits: dict[str, dict[int, _Day]] = {}

    def add(self, split: str, path: Place, first: int, rows: PageRows) -> None:
        """Adds the page rows of one row group; columns with errors are left out of `rows`."""
        times = rows.get(page_row.TIME)
        if not isinstance(times, np.ndarray) or not rows.keys() >= self._needed:
            return
        days, at, day_of = np.unique(times.astype(np.int64) // DAY, return_index=True, return_inverse=True)
        sums = np.zeros((len(days), len(SUMS) + 2 * len(self.columns)), dtype=np.int64)
        np.add.at(sums, day_of, self._of_pages(rows, len(times)))
        found = self._splits.setdefault(split, {})
        for day, row, of_day in zip(days.tolist(), at.tolist(), sums, strict=True):
            if day in found:
                found[day].sums += of_day
            else:
                found[day] = _Day(of_day, path, first + row, int(times[row]))

    def warnings(self, folder: Place) -> Iterator[str]:
        """One line for each split and label that is alone on some days, and one for each split with days to come."""
        today = int(time.time()) // DAY
        for split, days in self._splits.items():
            place = folder / split
            for label in (0, 1):
                if alone := self._alone(split, label):
                    one = days[min(alone)]
                    yield (
                        f"{place}: column clicks: on {len(alone):,} of {len(days):,} days all are {label}, such as the "
                        f"{one.sums[LABELLED]:,} of {_date(min(alone))}, from {one.path}: row {one.row} on; join the "
                        "clicks of these days, or leave their pages out"
                    )
            if late := [day for day in days if day > today + 1]:  # a zone is less than a day ahead
                pages, one = sum(int(days[day].sums[PAGES]) for day in late), days[min(late)]
                yield (
                    f"{place}: column time: {pages:,} pages are later than now, such as {one.time} ({utc(one.time)}) "
                    f"in {one.path}: row {one.row}; write when the page was shown, in seconds since 1970"
                )

    def _alone(self, split: str, label: int) -> list[int]:
        """The days on which all clicks are `label`, and too many in a row for that, by the rate of all other days."""
        days = sorted(self._splits[split])
        sums = np.stack([self._splits[split][day].sums for day in days])
        labelled, clicks = sums[:, LABELLED], sums[:, CLICKS]
        others = labelled - clicks if label else clicks  # [days], the other label
        found: list[int] = []
        for none, group in itertools.groupby(range(len(days)), lambda at: others[at] == 0):
            run = [*group]
            here, everywhere = labelled[run].sum(), labelled.sum()
            if none and here and here * (others.sum() / max(everywhere - here, 1)) >= EXPECTED:
                found += [days[at] for at in run if labelled[at]]
        return found

    def plain(self) -> dict[str, Any]:
        """By split, in the order of days: `day` (dates), the `SUMS`, and of each of `columns` the `ids` and `unknown`.

        `labelled` are the items that have a click or a 0.
        """
        found: dict[str, Any] = {}
        for split, days in self._splits.items():
            order = np.argsort(list(days))
            every = np.stack([day.sums for day in days.values()])[order]
            by_name = {name: every[:, at].tolist() for at, name in enumerate(SUMS)}
            ids = every[:, len(SUMS) :].reshape(len(days), len(self.columns), 2)
            by_column = {
                name: {"ids": ids[:, at, 0].tolist(), "unknown": ids[:, at, 1].tolist()}
                for at, name in enumerate(self.columns)
            }
            found[split] = {"day": [_date(day) for day in sorted(days)], **by_name, "columns": by_column}
        return found

    def _of_pages(self, rows: PageRows, pages: int) -> np.ndarray:
        """Int64 [pages, sums]: what each page adds; 0 for a column that is not there."""
        none = np.zeros(pages, dtype=np.int64)

        def lengths(name: str) -> np.ndarray:
            return column.lengths if isinstance(column := rows.get(name), Ragged) else none

        def where(name: str, wanted: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
            column = rows.get(name, none)
            return row_sums(column, wanted(column.values)) if isinstance(column, Ragged) else wanted(column)

        sums = [none + 1, lengths(page_row.ITEMS), lengths(page_row.CLICKS), where(page_row.CLICKS, lambda v: v != 0)]
        sums.append(where(page_row.TRIGGER, lambda v: v != 0))
        sums += [lengths(name) > 0 for name in (page_row.SHORT_ITEMS, page_row.LONG_ITEMS)]
        for name in self.columns:
            many = isinstance(rows.get(name), Ragged)
            sums.append(lengths(name) if many else none + (name in rows))
            sums.append(where(name, lambda v: v == 0) if name in rows else none)
        return np.stack(sums, axis=1, dtype=np.int64, casting="unsafe")


def _date(day: int) -> str:
    return utc(day * DAY)[:10]
