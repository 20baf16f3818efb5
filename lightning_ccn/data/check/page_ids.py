"""Page ids that two page views of a folder share."""

from __future__ import annotations

import numpy as np

from lightning_ccn.data.places import Place
from lightning_ccn.data.rules import SHOWN


class PageIds:
    """The ids of all page views, and where they are. Memory: 16 bytes per page view."""

    def __init__(self) -> None:
        self._ids: list[np.ndarray] = []  # of each row group
        self._places: list[tuple[str, Place, int]] = []  # split, file and first row of each row group

    def add(self, split: str, path: Place, first: int, ids: np.ndarray) -> None:
        """Adds a row group, int [pages], whose first row has the number `first` in its file."""
        self._ids.append(ids.astype(np.int64))
        self._places.append((split, path, first))

    def repeated(self) -> tuple[list[str], int]:
        """One line for each of the first `SHOWN` repeated ids, and the number of them all."""
        starts = np.cumsum([0, *map(len, self._ids)])
        every = np.concatenate([np.zeros(0, np.int64), *self._ids])
        self._ids.clear()
        in_order = np.sort(every)
        repeated = np.unique(in_order[1:][in_order[1:] == in_order[:-1]])
        lines = []
        for page_id in repeated[:SHOWN]:
            first, second, *_ = np.flatnonzero(every == page_id)
            (split, path, row), (split_2, path_2, row_2) = (self._place(int(at), starts) for at in (second, first))
            where = f"row {row_2} of {path_2} has it too"
            remedy = "give each page view its own id"
            if split != split_2:
                remedy += f", and write it to one split: this one is in {split_2} and in {split}"
            lines.append(f"{path}: row {row}, column page_id: {page_id}; {where}: {remedy}")
        return lines, len(repeated)

    def _place(self, at: int, starts: np.ndarray) -> tuple[str, Place, int]:
        group = int(np.searchsorted(starts, at, side="right")) - 1
        split, path, first = self._places[group]
        return split, path, first + at - int(starts[group])
