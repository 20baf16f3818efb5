"""From rows of embedding tables back to the ids of the log."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from lightning_ccn.data import page_row
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.vocabulary import Vocabulary
from lightning_ccn.errors import DataError

USER = "user"  # name of the table whose rows are the users


class RawIds:
    """The log's own ids of a dataset's items and users, from `vocabulary/*.parquet`.

    The vocabularies are read when `type` or `of` first asks for them. Memory: those of the two tables.

    Attributes:
        user: The profile feature that is the user's id: the first one of table `user` with one value; None if the
            dataset has none.

    Raises:
        DataError: One of the two tables has no vocabulary, or its rows are hashes.
    """

    # Not a dataclass: the command line would turn the fields of a dataclass into options.
    def __init__(self, dataset: Dataset) -> None:
        schema, folder = dataset.schema, dataset.folder
        self.user = next((f.name for f in schema.user if f.table == USER and not f.many), None)
        self._rows = {name: schema.tables[name].rows for name in (page_row.ITEM, *([USER] if self.user else []))}
        self._folder = folder / "vocabulary"
        self._ids: dict[str, pa.Array] = {}
        for name in self._rows:
            if schema.tables[name].mapping == "hash":
                raise DataError(
                    f"{folder}: the rows of table '{name}' are hashes (mapping: hash in schema.yaml), so several ids "
                    "of the log share a row, and none can be told from it: prepare the data with a vocabulary, or "
                    "write rows with --ids rows"
                )
            if name not in dataset.digests:
                raise DataError(
                    f"{folder}: there is no vocabulary/{name}.parquet, so nothing says which id of the log a row of "
                    f"table '{name}' is: write the ids there (column id, for rows 1, 2, ...) and run `ccn data check "
                    f"{folder} --write_stats true`, or write rows with --ids rows"
                )

    def of(self, table: str, rows: np.ndarray) -> pa.Array:
        """The ids of rows of a table, int [n]; null for row 0, the unknown id. Their type is that of the vocabulary.

        Raises:
            DataError: The vocabulary cannot be read, or has another number of rows than the table.
        """
        ids = self._vocabulary(table)
        if not len(ids):  # a table without any id has 2 rows all the same
            return pa.nulls(len(rows), ids.type)
        return ids.take(pa.array(rows - 1, pa.int64(), mask=rows == 0))

    def type(self, table: str) -> pa.DataType:
        """The type of the ids of a table: integers or strings."""
        return self._vocabulary(table).type

    def _vocabulary(self, table: str) -> pa.Array:
        if table not in self._ids:
            path = self._folder / f"{table}.parquet"
            vocabulary = Vocabulary.load(path)
            if max(len(vocabulary), 2) != self._rows[table]:
                raise DataError(
                    f"{path}: {len(vocabulary) - 1} ids make {len(vocabulary)} rows with row 0, but "
                    f"tables.{table}.rows in schema.yaml is {self._rows[table]}; write one id for each row after row 0"
                )
            self._ids[table] = vocabulary.ids
        return self._ids[table]
