"""From rows of a dataset's tables back to the ids of its log, for every table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.vocabulary import Vocabulary


class LogIds:
    """The log's ids of rows of tables. A vocabulary is read when its table is first asked for.

    Args:
        dataset: An open dataset folder.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._vocabularies: dict[str, pa.Array] = {}

    def known(self, table: str) -> bool:
        """Whether the table has a vocabulary."""
        return table in self._dataset.digests

    def has(self, table: str) -> bool:
        """Whether rows of the table have ids: those of a vocabulary, or themselves; rows that are hashes have none."""
        return self.known(table) or self._dataset.schema.tables[table].mapping != "hash"

    def of(self, table: str, rows: np.ndarray) -> list[Any]:
        """The ids of rows, int [n]; None for the unknown row, and for rows that are hashes.

        Without a vocabulary, the ids are the rows.
        """
        if not self.known(table):
            return [int(row) if row and self.has(table) else None for row in rows]
        if table not in self._vocabularies:
            self._vocabularies[table] = Vocabulary.load(self._dataset.folder / "vocabulary" / f"{table}.parquet").ids
        ids: list[Any] = self._vocabularies[table].take(pa.array(rows - 1, pa.int64(), mask=rows == 0)).to_pylist()
        return ids
