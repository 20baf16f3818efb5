"""Ids far beyond their table: the ids of the log, written where rows belong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_ccn.data.columns import Column
from lightning_ccn.data.parquet import PageRows
from lightning_ccn.data.places import Place
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.schema import Schema

FAR = 2  # times the rows of a table: it did not just grow by some ids
FEWEST, SHARE = (
    10,
    0.1,
)  # far ids, and their share of a column's: fewer are single mistakes, which have lines of their own


@dataclass
class _FarCounts:
    ids: int = 0
    far: int = 0
    first: str = ""  # the first far id and where it is


class FarIds:
    """Counts ids that are `FAR` times the rows of their table or more. Memory: counts, and one place of each column."""

    def __init__(self, schema: Schema) -> None:
        self._rows = {name: table.rows for name, table in schema.tables.items()}
        self._counts: dict[tuple[str, Column], _FarCounts] = {}

    def add(self, split: str, path: Place, first: int, columns: Sequence[Column], rows: PageRows) -> None:
        """Adds the page rows of one row group, those with errors too."""
        for column in columns:
            if column.holds != "id" or column.name not in rows:
                continue
            stored, counts = rows[column.name], self._counts.setdefault((split, column), _FarCounts())
            values = stored.values if isinstance(stored, Ragged) else stored
            far = np.flatnonzero(values >= FAR * self._rows[column.table])
            if len(far) and not counts.first:
                at = int(far[0])
                row = int(np.searchsorted(stored.offsets, at, side="right")) - 1 if isinstance(stored, Ragged) else at
                counts.first = f"{path}: row {first + row}, column {column.name}: {values[at]}"
            counts.ids += len(values)
            counts.far += len(far)

    def errors(self) -> Iterator[str]:
        """One line for each column of a split with many of them."""
        for (split, column), counts in self._counts.items():
            if counts.far >= FEWEST and counts.far >= SHARE * counts.ids:
                yield (
                    f"{counts.first} is far beyond the {self._rows[column.table]:,} rows of table '{column.table}', as "
                    f"are {counts.far:,} of {counts.ids:,} ids of this column in {split}/; if they are the log's own, "
                    f"write the row of each instead, its place in vocabulary/{column.table}.parquet counted from 1"
                )
