"""How much of each column is unknown, and which rows of each table are ever used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lightning_ccn.data import page_row
from lightning_ccn.data.dataset import SPLITS
from lightning_ccn.data.parquet import PageRows
from lightning_ccn.data.places import Place
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.schema import Feature, Schema

MOST_ROWS = 1 << 31  # of a table whose rows are kept in mind, one byte each
FEW = 100  # values of a column; shares of fewer values say little
# Shares beyond belief. Profiles are honestly sparse (99.7% of EB-NeRD's postcodes are unknown), and so are triggers.
MOST_UNKNOWN, MOST_NEW = 0.9, 0.99
LISTS_OF_ITEMS = (page_row.ITEMS, page_row.SHORT_ITEMS, page_row.LONG_ITEMS)
ATTRIBUTE = 1 << len(SPLITS)


def id_columns(schema: Schema) -> list[Feature]:
    """The columns of page rows whose values are ids; those of items as features, too."""
    return [*schema.user, *(Feature(name, page_row.ITEM) for name in (page_row.TRIGGER, *LISTS_OF_ITEMS))]


class Usage:
    """Counts unknown ids by column, and keeps in mind which rows of which table each split uses.

    Memory: one byte per row of each table, of which the operating system hands out only the parts that are used.

    Attributes:
        seen: Bits of the splits that use a row, uint8 [rows], by table; `ATTRIBUTE`: an item of items.parquet has it.
    """

    def __init__(self, schema: Schema) -> None:
        self.seen = {n: np.zeros(t.rows, dtype=np.uint8) for n, t in schema.tables.items() if t.rows <= MOST_ROWS}
        self._columns = id_columns(schema)
        self._counts: dict[tuple[str, str], np.ndarray] = {}  # (column, split): values, unknown, new, int64 [3]

    def add_items(self, attributes: Sequence[Feature], items: Mapping[str, np.ndarray | Ragged]) -> None:
        """Adds the attributes of all items."""
        for feature in attributes:
            if feature.table in self.seen and feature.name in items:
                column = items[feature.name]
                self.seen[feature.table][column.values if isinstance(column, Ragged) else column] |= ATTRIBUTE

    def add(self, split: str, rows: PageRows) -> None:
        """Adds page rows whose ids are rows of their tables; the splits come in the order of `SPLITS`."""
        bit = 1 << SPLITS.index(split)
        for feature in self._columns:
            if feature.name not in rows:
                continue
            stored = rows[feature.name]
            values = stored.values if isinstance(stored, Ragged) else stored
            counts = self._counts.setdefault((feature.name, split), np.zeros(3, dtype=np.int64))
            counts += (len(values), np.count_nonzero(values == 0), 0)
            if feature.table in self.seen:
                seen = self.seen[feature.table]
                counts[2] += np.count_nonzero((seen[values] & (bit - 1) == 0) & (values != 0))
                seen[values] |= bit

    def figures(self) -> Iterator[str]:
        """The lines of the report."""
        if not self._counts:
            return
        yield f"{'share of unknown ids (row 0)':<36}" + "".join(f"{split:>13}" for split in SPLITS) + "  new in test"
        for name in dict.fromkeys(name for name, _ in self._counts):
            shares = "".join(f"{self._share(name, split, 1):>13}" for split in SPLITS)
            yield f"  column {name:<27}{shares}{self._share(name, 'test', 2):>13}"
        yield f"{'rows of tables':<36}{'rows':>13}{'used':>13}{'only in test':>13}"
        for name, (rows, used, only) in self._tables().items():
            yield f"  table {name:<28}{rows:>13,}{used / rows:>13.1%}{only:>13,}"

    def plain(self) -> dict[str, Any]:
        """`columns`: by name, the table, and by split the numbers of `ids`, `unknown` ones and ones `new` to it.

        `tables`: by name, the numbers of `rows` after row 0, of `used` ones, and of those used in test alone.
        """
        columns: dict[str, Any] = {feature.name: {"table": feature.table, "splits": {}} for feature in self._columns}
        for (name, split), counts in self._counts.items():
            columns[name]["splits"][split] = dict(zip(("ids", "unknown", "new"), counts.tolist(), strict=True))
        tables = {
            name: dict(zip(("rows", "used", "only_in_test"), counts, strict=True))
            for name, counts in self._tables().items()
        }
        return {"columns": columns, "tables": tables}

    def _tables(self) -> dict[str, tuple[int, int, int]]:
        """By table, its rows after row 0, those that are used, and those that only test pages use."""
        test, found = 1 << SPLITS.index("test"), {}
        for name, seen in self.seen.items():
            only = np.count_nonzero(seen[1:] == test) + np.count_nonzero(seen[1:] == test | ATTRIBUTE)
            found[name] = (len(seen) - 1, int(np.count_nonzero(seen[1:])), int(only))
        return found

    def warnings(self, folder: Place) -> Iterator[str]:
        """One line per share that is beyond belief."""
        for (name, split), (values, unknown, new) in self._counts.items():
            place = f"{folder / split}: column {name}"
            if values < FEW:
                continue
            most = MOST_UNKNOWN if name in LISTS_OF_ITEMS else 1.0
            if unknown >= most * values and name != page_row.TRIGGER:
                text = f"{unknown / values:.1%} of the ids are 0, the unknown id"
                yield f"{place}: {text}; map the original ids to the rows 1, 2, ... of its table"
            elif split == "test" and new > MOST_NEW * values and self._known(name):
                text = f"{new / values:.1%} of the ids are in no training or validation page"
                yield f"{place}: {text}; give an id the same row in all splits"

    def _known(self, name: str) -> bool:
        return any((name, split) in self._counts for split in SPLITS[:-1])

    def _share(self, name: str, split: str, which: int) -> str:
        counts = self._counts.get((name, split))
        if counts is None or not counts[0] or (which == 2 and not self._known(name)):
            return "-"
        return f"{counts[which] / counts[0]:.1%}"
