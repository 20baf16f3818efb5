"""Cuts long sequences to what the reader's search can ask for: the hard search, done when data is prepared.

A cut page has, of each category of its items and of its trigger, the K most recent long behaviours (without a category
in the schema: the K most recent). They stay in their columns and in their order, so that a search for K or fewer of
each category finds what it found before, and the reader knows nothing of the cut. `Schema.cut_long_length` is K.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lightning_ccn.data import page_row
from lightning_ccn.data.parquet import PageRows, decode, list_column, open_part, value_column
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.rules import check_rows
from lightning_ccn.data.schema import Schema
from lightning_ccn.data.search import HardSearch

LONG = (page_row.LONG_ITEMS, page_row.LONG_TIMES)
SEARCHED = (page_row.ITEMS, page_row.TRIGGER, *LONG)


@dataclass
class CutCounts:
    """What a cut left.

    Attributes:
        before: Number of long behaviours before.
        after: Number of long behaviours left.
        pages_with_long: Number of pages that have any left.
    """

    before: int = 0
    after: int = 0
    pages_with_long: int = 0

    def __iadd__(self, other: CutCounts) -> CutCounts:
        self.before += other.before
        self.after += other.after
        self.pages_with_long += other.pages_with_long
        return self


class LongCut:
    """Cuts the long sequences of page rows.

    Args:
        schema: Schema of the dataset; it has `cut_long_length`.
        items: Item attributes by name, int [rows of the item table] each.
    """

    def __init__(self, schema: Schema, items: Mapping[str, np.ndarray | Ragged]) -> None:
        if schema.cut_long_length is None:
            raise ValueError("the schema has no cut_long_length")
        self.schema, self.most = schema, schema.cut_long_length
        self._search = HardSearch.of_schema(schema, items)

    def kept(self, rows: PageRows) -> np.ndarray:
        """Which values of `long_items` are left, int64, ascending.

        Args:
            rows: Page rows without errors; `items`, `trigger` and `long_items` are read.
        """
        exposed = list_column(rows, page_row.ITEMS)
        page = np.repeat(np.arange(len(exposed.lengths)), exposed.lengths)
        trigger = value_column(rows, page_row.TRIGGER)
        found = self._search(list_column(rows, page_row.LONG_ITEMS), exposed.values, page, trigger, self.most)
        return np.sort(found.place)  # the groups of a page have no behaviour in common

    def __call__(self, rows: PageRows) -> PageRows:
        """The same page rows with shorter `long_items` and `long_times`."""
        return {**rows, **self._shortened(rows, self.kept(rows))}

    def part(self, source: Path, to: Path) -> CutCounts:
        """Writes a cut copy of a Parquet file, in the same row groups; memory: one row group.

        Raises:
            DataError: The file is corrupt, or a value breaks a rule of `rules`.
        """
        counts = CutCounts()
        with open_part(source) as file:
            stored = file.schema_arrow
        # the writer is outside of `open_part`, which would blame the source for a full disk
        with pq.ParquetWriter(to, stored, compression="zstd") as writer:
            for table, of_group in self._row_groups(source):
                # one row group, however large, and also if it is empty: the order of the pages is one of row groups
                writer.write_table(table, row_group_size=max(table.num_rows, 1))
                counts += of_group
        return counts

    def _row_groups(self, source: Path) -> Iterator[tuple[pa.Table, CutCounts]]:
        first = 0
        with open_part(source) as file:
            stored = file.schema_arrow
            for group in range(file.num_row_groups):
                rows = decode(file, group, SEARCHED)
                check_rows(self.schema, rows, source, first)
                shorter = self._shortened(rows, self.kept(rows))
                others = file.read_row_group(group, columns=[name for name in stored.names if name not in LONG])
                columns = {name: others.column(name) for name in others.column_names}
                columns |= {name: _as_stored(column, stored.field(name)) for name, column in shorter.items()}
                table = pa.table([columns[name] for name in stored.names], schema=stored)
                whole, left = list_column(rows, page_row.LONG_ITEMS), shorter[page_row.LONG_ITEMS]
                yield table, CutCounts(len(whole.values), len(left.values), int((left.lengths > 0).sum()))
                first += table.num_rows

    def _shortened(self, rows: PageRows, kept: np.ndarray) -> dict[str, Ragged]:
        offsets = np.searchsorted(kept, list_column(rows, page_row.LONG_ITEMS).offsets)  # of what is left
        return {name: Ragged(list_column(rows, name).values[kept], offsets) for name in LONG}


def _as_stored(column: Ragged, field: pa.Field) -> pa.Array:
    """A list column of the type that the file has."""
    of = pa.LargeListArray if pa.types.is_large_list(field.type) else pa.ListArray
    return of.from_arrays(pa.array(column.offsets), pa.array(column.values), type=field.type)
