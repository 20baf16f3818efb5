"""Whether the row groups of a split are too small, too many in a part, or too large for a reader's memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow.parquet as pq

from lightning_ccn.data.columns import page_columns
from lightning_ccn.data.places import Place
from lightning_ccn.data.schema import Schema

FEWEST_PAGES = 128  # a page in fewer costs the reader more than twice what it costs in 512, see docs/data.md
FEW_GROUPS = 256  # of a split: reading them takes parts of a second, however small they are
LANES = 64  # the default of data.lanes: a rank alone reads one row group of each lane at a time
MOST_OPEN = LANES + 1  # parts that a rank keeps open; of more, it opens another one for most row groups
MOST_GROUPS = 256  # of a part that is opened often: to open it takes as long as to read one of them, of 512 pages
MOST_GROUPS_ONCE = 5_000  # of a part that stays open: to open it takes 60 ms, in every process
MOST_BYTES = 2 << 30  # of the row groups of all lanes
WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8}
REMEDY = "(pyarrow: row_group_size; Spark: parquet.block.size, or repartition for other parts)"


@dataclass
class _Largest:
    bytes: int = 0
    pages: int = 0
    place: str = ""


class RowGroups:
    """Looks at the footers of a dataset's parts."""

    def __init__(self, schema: Schema) -> None:
        read = [column for column in page_columns(schema) if column.holds != "time" and not column.optional]
        self._lists = {column.name: column.many for column in read}  # the columns that the reader decodes
        self._pages: dict[str, int] = {}
        self._groups: dict[str, int] = {}
        self._parts: dict[str, list[tuple[Place, int, int]]] = {}  # path, row groups and bytes of the footer
        self._largest: dict[str, _Largest] = {}

    def add(self, split: str, path: Place, footer: pq.FileMetaData) -> None:
        """Adds the footer of one part."""
        filled = [group for group in range(footer.num_row_groups) if footer.row_group(group).num_rows]
        if not filled:
            return
        self._pages[split] = self._pages.get(split, 0) + footer.num_rows
        self._groups[split] = self._groups.get(split, 0) + len(filled)
        self._parts.setdefault(split, []).append((path, footer.num_row_groups, footer.serialized_size))
        group = max(filled, key=lambda group: footer.row_group(group).total_byte_size)
        size, largest = self._decoded(footer.row_group(group)), self._largest.setdefault(split, _Largest())
        if size > largest.bytes:
            self._largest[split] = _Largest(size, footer.row_group(group).num_rows, f"{path}: row group {group}")

    def warnings(self, folder: Place) -> Iterator[str]:
        """One line for each split or part that costs a reader more than it need."""
        for split, groups in self._groups.items():
            pages = self._pages[split] / groups
            if pages < FEWEST_PAGES and groups >= FEW_GROUPS:
                yield (
                    f"{folder / split}: {groups:,} row groups of {pages:.1f} pages on average; however small one is, "
                    f"to read it takes a time of its own: write {FEWEST_PAGES} pages or more, such as 512, to a row "
                    f"group {REMEDY}"
                )
        for parts in self._parts.values():
            most = MOST_GROUPS if len(parts) > MOST_OPEN else MOST_GROUPS_ONCE
            for path, groups, size in parts:
                if groups > most:
                    yield (
                        f"{path}: {groups:,} row groups make a footer of {size / 1e6:.1f} MB, which is read whole to "
                        f"read any of them: write at most {most:,} to a part {REMEDY}"
                    )
        for largest in self._largest.values():
            if (held := LANES * largest.bytes) > MOST_BYTES:
                fits = 1 << max((largest.pages * MOST_BYTES // held).bit_length() - 1, 0)
                yield (
                    f"{largest.place} has {largest.pages:,} pages, {largest.bytes / 1e9:.2g} GB when decoded; a rank "
                    f"holds what it needs of up to {LANES} (data.lanes), at most {held / 1e9:.1f} GB: write about "
                    f"{fits:,} pages to a row group {REMEDY}"
                )

    def _decoded(self, group: pq.RowGroupMetaData) -> int:
        """About how many bytes a row group takes when it is decoded: its values, and the offsets of its lists."""
        size = 0
        for at in range(group.num_columns):
            column = group.column(at)
            name = column.path_in_schema.partition(".")[0]
            if name in self._lists:
                size += column.num_values * WIDTHS.get(column.physical_type, 8) + 8 * self._lists[name] * group.num_rows
        return size
