"""Page views that are in a folder more than once, under other ids: a log that was loaded twice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lightning_ccn.data import page_row
from lightning_ccn.data.parquet import PageRows
from lightning_ccn.data.places import Place
from lightning_ccn.data.ragged import Ragged, row_sums
from lightning_ccn.data.schema import Schema
from lightning_ccn.data.splitmix64 import splitmix64

MOST = 1 << 21  # pages that are kept in mind
HALVES = 62  # of the range of a digest


class Copies:
    """Looks for pages that have the user, time, trigger and items of another one.

    Pages are compared by a digest. Of more than `MOST` pages, those whose digest is in the lower half of its range are
    kept in mind, then the lower quarter, and so on: all copies of a page or none. So memory does not grow with the
    number of pages, and a log that was loaded twice is seen all the same. Memory: 64 bytes for each of them.

    Args:
        schema: Schema of the dataset.
        most: Pages that are kept in mind.
    """

    def __init__(self, schema: Schema, most: int = MOST) -> None:
        self._user = [feature.name for feature in schema.user if not feature.many]
        self._most, self._halved = most, 0
        self._kept = np.zeros((0, 3), dtype=np.int64)  # digest, part, row
        self._fresh: list[np.ndarray] = []
        self._parts: list[tuple[str, Place]] = []  # split and path
        self._pages = 0

    def add(self, split: str, path: Place, first: int, rows: PageRows) -> None:
        """Adds the page rows of one row group; columns with errors are left out of `rows`."""
        exposed, single = rows.get(page_row.ITEMS), [page_row.TIME, page_row.TRIGGER, *self._user]
        if not isinstance(exposed, Ragged) or not rows.keys() >= set(single):
            return
        if not self._parts or self._parts[-1] != (split, path):
            self._parts.append((split, path))
        digest = self._digests(exposed, [np.asarray(rows[name], dtype=np.int64) for name in single])
        row = np.flatnonzero((exposed.lengths > 0) & self._in_range(digest))
        part = np.full(len(row), len(self._parts) - 1)
        self._pages += int(np.count_nonzero(exposed.lengths))
        self._fresh.append(np.stack([digest[row], part, first + row], axis=1))
        if sum(map(len, self._fresh)) >= self._most // 4:
            self._gather()

    def warnings(self) -> Iterator[str]:
        """One line, if there are copies."""
        self._gather()
        kept = self._kept[np.lexsort(self._kept.T[::-1])]
        again = np.flatnonzero(kept[1:, 0] == kept[:-1, 0]) + 1
        if not len(again):
            return
        at = again[np.lexsort((kept[again, 2], kept[again, 1]))[0]]  # the first one in the folder
        (split, path), row = self._parts[kept[at, 1]], kept[at, 2]
        (split_2, path_2), row_2 = self._parts[kept[at - 1, 1]], kept[at - 1, 2]
        of = f"{len(kept):,} pages" + (f" (a sample of {self._pages:,})" if self._halved else "")
        where = f", in another split, {split_2}" if split != split_2 else ""
        yield (
            f"{path}: row {row} has the user, time, trigger and items of row {row_2} of {path_2}{where}; of {of}, "
            f"{len(again):,} are such copies: write each page view once"
        )

    def _digests(self, exposed: Ragged, single: list[np.ndarray]) -> np.ndarray:
        """Int64 [pages]; the order of a page's items does not count."""
        digest = splitmix64(row_sums(exposed, splitmix64(exposed.values.astype(np.int64) + 1)))
        for values in single:
            digest = splitmix64(digest ^ values)
        return digest

    def _in_range(self, digest: np.ndarray) -> np.ndarray:
        return (digest & (2**62 - 1)) < 1 << (HALVES - self._halved)

    def _gather(self) -> None:
        self._kept = np.concatenate([self._kept, *self._fresh])
        self._fresh.clear()
        while len(self._kept) > self._most:
            self._halved += 1
            self._kept = self._kept[self._in_range(self._kept[:, 0])]
