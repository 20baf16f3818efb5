"""How many items, clicks and behaviours the pages have."""

from __future__ import annotations

from typing import Any

import numpy as np

from lightning_ccn.data import page_row
from lightning_ccn.data.parquet import PageRows
from lightning_ccn.data.ragged import Ragged, row_sums

# The least number of each class; the last one has no end.
CLASSES = (0, 1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100, 200, 500, 1000, 2000, 5000)
OF_PAGES = ("items", "clicks", "short behaviours", "long behaviours")


class Lengths:
    """Counts pages by their number of items, clicks, short and long behaviours. Memory: counts."""

    def __init__(self) -> None:
        self._pages: dict[tuple[str, str], np.ndarray] = {}  # (of what, split): int64 [classes]
        self._most: dict[tuple[str, str], int] = {}
        self._sum: dict[tuple[str, str], int] = {}

    def add(self, split: str, rows: PageRows) -> None:
        """Adds the page rows of one row group; columns with errors are left out of `rows`."""
        columns = (page_row.ITEMS, page_row.CLICKS, page_row.SHORT_ITEMS, page_row.LONG_ITEMS)
        for what, name in zip(OF_PAGES, columns, strict=True):
            if not isinstance(column := rows.get(name), Ragged):
                continue
            lengths = row_sums(column, column.values != 0) if name == page_row.CLICKS else column.lengths
            counts = self._pages.setdefault((what, split), np.zeros(len(CLASSES), dtype=np.int64))
            counts += np.bincount(np.searchsorted(CLASSES, lengths, side="right") - 1, minlength=len(CLASSES))
            self._most[what, split] = max(self._most.get((what, split), 0), int(lengths.max(initial=0)))
            self._sum[what, split] = self._sum.get((what, split), 0) + int(lengths.sum())

    def plain(self) -> dict[str, Any]:
        """By kind of length and split: the `pages` of each class, their `mean` and `most`; and the classes' `least`."""
        found: dict[str, Any] = {}
        for (what, split), pages in self._pages.items():
            mean = self._sum[what, split] / max(int(pages.sum()), 1)
            of_split = {"pages": pages.tolist(), "mean": mean, "most": self._most[what, split]}
            found.setdefault(what, {"least": list(CLASSES), "splits": {}})["splits"][split] = of_split
        return found
