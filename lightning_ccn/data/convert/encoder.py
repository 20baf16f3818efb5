"""Encoding of a log: `Encoder` maps original ids to table rows, `ItemTimes` gives the ages of items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.page_row import ITEM, ITEM_AGE
from lightning_ccn.data.schema import Feature, Schema, Table
from lightning_ccn.data.splitmix64 import hash_rows
from lightning_ccn.data.store_copies import local_copy
from lightning_ccn.data.vocabulary import Vocabulary
from lightning_ccn.errors import DataError


class Encoder:
    """Maps original ids to rows of the tables of a new dataset; each feature has a table of its own name.

    Args:
        extends: An older dataset of the same converter. Its ids keep their rows, new ids get further rows, and the new
            dataset has the same features, so that a model of the older dataset fits the new one.
        hashed: Number of rows of each hashed table; 0: the table has a vocabulary.

    Raises:
        DataError: The older dataset cannot be read, or its mapping of a table conflicts with `hashed`.
    """

    def __init__(self, extends: str | Path | None, hashed: Mapping[str, int]) -> None:
        self.vocabularies: dict[str, Vocabulary] = {}
        self.hashed = {table: rows for table, rows in hashed.items() if rows}
        self.older = None if extends is None else Dataset.open(extends)
        if self.older is None:
            return
        for name, table in self.older.schema.tables.items():
            wanted = self.hashed.get(name, table.rows if table.mapping == "hash" else 0)
            if wanted != (table.rows if table.mapping == "hash" else 0):
                raise DataError(
                    f"{extends}: table '{name}' has {table.rows} rows, mapping {table.mapping}, which a dataset "
                    f"that extends it must keep; leave out the option that asks for {wanted} hashed rows"
                )
            if table.mapping == "hash":
                self.hashed[name] = table.rows
            else:
                self.vocabularies[name] = Vocabulary.load(self.older.folder / "vocabulary" / f"{name}.parquet")
        self._attributes = pq.read_table(local_copy(self.older.folder / "items.parquet"))

    def features(self, kind: str, found: Sequence[str], known: Iterable[str]) -> list[str]:
        """The features to write: those of the older dataset if there is one, else those of the log.

        Args:
            kind: `user` or `attributes`, a field of `Schema`.
            found: Features of this log.
            known: All features that this converter can write.

        Raises:
            DataError: The older dataset has a feature that this converter cannot write.
        """
        if self.older is None:
            return list(found)
        names = [feature.name for feature in getattr(self.older.schema, kind)]
        for name in names:
            if name not in known:
                raise DataError(
                    f"{self.older.folder}: has the feature '{name}', which this converter cannot write; "
                    "extend a dataset that came from the same kind of log"
                )
        return names

    def rows(self, table: str, ids: pa.Array) -> np.ndarray:
        """Rows of the ids, int64 [n]; 0 for null. New ids are added to the table's vocabulary.

        Raises:
            DataError: The older dataset's ids have another type.
        """
        ids = ids.cast(
            pa.string() if pa.types.is_large_string(ids.type) or pa.types.is_string(ids.type) else pa.int64()
        )
        if table in self.hashed:
            rows = hash_rows(pc.fill_null(ids, 0).to_numpy(), self.hashed[table])
            return np.where(pc.is_null(ids).to_numpy(zero_copy_only=False), 0, rows)
        vocabulary = self.vocabularies.get(table)
        if vocabulary is None or len(vocabulary) == 1:  # an empty vocabulary has no type yet
            vocabulary = self.vocabularies[table] = Vocabulary()
        elif vocabulary.ids.type != ids.type:
            raise DataError(
                f"table '{table}' of the dataset to extend has {vocabulary.ids.type} ids, but this log has "
                f"{ids.type}; extend a dataset that came from the same kind of log"
            )
        vocabulary.extend(ids)
        return vocabulary.encode(ids)

    def schema(self, user: Sequence[str], attributes: Sequence[str], cut_long_length: int | None) -> Schema:
        """The schema with the current sizes of the tables."""
        tables = {}
        for name in (ITEM, *user, *attributes):
            if name in self.hashed:
                tables[name] = Table(self.hashed[name], "hash")
            else:  # a table needs a row besides the unknown one, even if it stays unused
                tables[name] = Table(max(len(self.vocabularies.get(name, Vocabulary())), 2))
        category = "category" if "category" in attributes else None
        return Schema(
            tables=tables,
            user=tuple(Feature(name, name) for name in user),
            attributes=tuple(Feature(name, name) for name in attributes),
            numbers=(ITEM_AGE,),
            category=category if self.older is None else self.older.schema.category,
            cut_long_length=cut_long_length,
        )

    def attributes(self, names: Sequence[str], catalogue: pa.Table) -> tuple[dict[str, np.ndarray], int]:
        """Attributes of all items that were encoded so far; call it after all pages.

        Args:
            names: Names of the attributes. An attribute that is not in the catalogue keeps the older dataset's values,
                and is unknown for new items.
            catalogue: Column `id` and one column per attribute; of repeated ids, the first one counts.

        Returns:
            Int64 [rows of the item table] per attribute; number of items that are not in the catalogue.
        """
        ids = self.vocabularies[ITEM].ids
        place = pc.index_in(ids, value_set=catalogue["id"].combine_chunks().cast(ids.type))
        columns = {}
        for name in names:
            column = np.zeros(max(len(ids) + 1, 2), dtype=np.int64)
            if self.older is not None:
                column[: self._attributes.num_rows] = self._attributes[name].to_numpy()
            if name in catalogue.column_names:
                values = catalogue[name].combine_chunks().take(place)
                known = ~pc.is_null(values).to_numpy(zero_copy_only=False)
                column[1:][known] = self.rows(name, values)[known]
            columns[name] = column
        return columns, place.null_count


class ItemTimes:
    """The first known time of each item: its publication, or its first appearance in the log.

    Using first appearances in the whole log does not leak the future: an item on a page first appeared on that page or
    earlier. A serving system can keep the same table.
    """

    def __init__(self) -> None:
        self._first = pa.table({"id": pa.array([], pa.int64()), "time": pa.array([], pa.int64())})

    @property
    def empty(self) -> bool:
        """Whether no item has a time."""
        return self._first.num_rows == 0

    def add(self, ids: pa.Array, times: np.ndarray | pa.Array) -> None:
        """Records that items, int64 or string [n], appeared at `times`, int64 seconds [n]."""
        new = _earliest(pa.table({"id": ids, "time": times}))
        self._first = new if self.empty else _earliest(pa.concat_tables([self._first, new]))

    def ages(self, ids: pa.Array, times: np.ndarray) -> np.ndarray:
        """ln(1 + hours from the item's first time to `times`), float32 [n]; NaN for an unknown item.

        The logarithm is used because an hour matters for a new item but not for an old one. An item whose first time is
        after the page's time (it appeared in a later impression of the same page) gets 0.
        """
        place = pc.index_in(ids.cast(self._first["id"].type), value_set=self._first["id"].combine_chunks())
        first = self._first["time"].combine_chunks().take(place)
        known = ~pc.is_null(first).to_numpy(zero_copy_only=False)
        hours = (times - pc.fill_null(first, 0).to_numpy()) / 3600
        return np.where(known, np.log1p(np.maximum(hours, 0)), np.nan).astype(np.float32)


def _earliest(seen: pa.Table) -> pa.Table:
    return seen.group_by("id").aggregate([("time", "min")]).rename_columns({"time_min": "time"}).select(["id", "time"])
