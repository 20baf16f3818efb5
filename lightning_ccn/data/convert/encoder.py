"""From a log's own ids and times to table rows and ages: vocabularies that grow, and when an item first appeared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.page_row import ITEM
from lightning_ccn.data.schema import Feature, Schema, Table
from lightning_ccn.data.vocabulary import Vocabulary, hash_rows
from lightning_ccn.errors import DataError

ITEM_AGE = "item_age"  # ln(1 + hours) from an item's first time to the page view


class Encoder:
    """The tables of a dataset in the making: each feature has a table of its own name.

    Args:
        extends: an older dataset of the same converter. Its rows keep their meaning and new ids follow them; its
            features are those of the new dataset too, so that a model trained on it fits.
        hashed: rows of the tables whose ids are hashed, not listed (0: listed).

    Raises:
        DataError: the older dataset cannot be read, or maps a table otherwise than `hashed` asks.
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
                    f"{extends}: table '{name}' has {table.rows} rows, mapping {table.mapping}, and a dataset that "
                    f"extends it must keep that; leave out the option that asks for {wanted} hashed rows"
                )
            if table.mapping == "hash":
                self.hashed[name] = table.rows
            else:
                self.vocabularies[name] = Vocabulary.load(self.older.folder / "vocabulary" / f"{name}.parquet")
        self._attributes = pq.read_table(self.older.folder / "items.parquet")

    def features(self, kind: str, found: Sequence[str], known: Iterable[str]) -> list[str]:
        """The features to write: those found in the log, or all those of the older dataset.

        Args:
            kind: `user` or `attributes`, a field of `Schema`.
            found: the features that this log has.
            known: every feature that this converter can write.

        Raises:
            DataError: the older dataset has a feature that no log of this kind has.
        """
        if self.older is None:
            return list(found)
        names = [feature.name for feature in getattr(self.older.schema, kind)]
        for name in names:
            if name not in known:
                raise DataError(
                    f"{self.older.folder}: has the feature '{name}', which this converter does not make; "
                    "extend a dataset that came from the same kind of log"
                )
        return names

    def rows(self, table: str, ids: pa.Array) -> np.ndarray:
        """Table rows of the ids, new ids entered: int64, same length; 0 for null.

        Raises:
            DataError: the older dataset's ids are of another type.
        """
        ids = ids.cast(
            pa.string() if pa.types.is_large_string(ids.type) or pa.types.is_string(ids.type) else pa.int64()
        )
        if table in self.hashed:
            rows = hash_rows(pc.fill_null(ids, 0).to_numpy(), self.hashed[table])
            return np.where(pc.is_null(ids).to_numpy(zero_copy_only=False), 0, rows)
        vocabulary = self.vocabularies.get(table)
        if vocabulary is None or len(vocabulary) == 1:  # an empty one has no type yet
            vocabulary = self.vocabularies[table] = Vocabulary()
        elif vocabulary.ids.type != ids.type:
            raise DataError(
                f"table '{table}' of the dataset to extend lists {vocabulary.ids.type} ids, and this log has "
                f"{ids.type}: extend a dataset that came from the same kind of log"
            )
        vocabulary.extend(ids)
        return vocabulary.encode(ids)

    def schema(self, user: Sequence[str], attributes: Sequence[str]) -> Schema:
        """The schema with the tables as large as they are now."""
        tables = {}
        for name in (ITEM, *user, *attributes):
            if name in self.hashed:
                tables[name] = Table(self.hashed[name], "hash")
            else:  # a table has at least one row besides the unknown one, even if the log never fills it
                tables[name] = Table(max(len(self.vocabularies.get(name, Vocabulary())), 2))
        category = "category" if "category" in attributes else None
        return Schema(
            tables=tables,
            user=tuple(Feature(name, name) for name in user),
            attributes=tuple(Feature(name, name) for name in attributes),
            numbers=(ITEM_AGE,),
            category=category if self.older is None else self.older.schema.category,
        )

    def attributes(self, names: Sequence[str], catalogue: pa.Table) -> tuple[dict[str, np.ndarray], int]:
        """Attributes of every item entered so far; call it last, when the items are complete.

        Args:
            names: of the attributes; one that the catalogue lacks keeps the older dataset's values, or is unknown.
            catalogue: column `id`, and one column an attribute; an id that stands twice counts the first time.

        Returns:
            By attribute, int64 [rows of the item table]; and how many items the catalogue does not have.
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
    """The first time known of each item: when it was published, or else its first appearance in the log.

    A first appearance over the whole log is no look into the future: an item stands on a page, so its first
    appearance is that page or something before it. Serving can keep the same table.
    """

    def __init__(self) -> None:
        self._first = pa.table({"id": pa.array([], pa.int64()), "time": pa.array([], pa.int64())})

    @property
    def empty(self) -> bool:
        """Whether no item has a time."""
        return self._first.num_rows == 0

    def add(self, ids: pa.Array, times: np.ndarray | pa.Array) -> None:
        """Takes note of items, int64 or string [n], seen at `times`, int64 seconds [n]."""
        new = _earliest(pa.table({"id": ids, "time": times}))
        self._first = new if self.empty else _earliest(pa.concat_tables([self._first, new]))

    def ages(self, ids: pa.Array, times: np.ndarray) -> np.ndarray:
        """ln(1 + hours from the item's first time to `times`): float32 [n]; NaN for an item without one.

        The logarithm, because an hour matters to a new item and not to an old one. 0 for an item whose first
        time lies after the page's (it came to the page later than the page's first impression).
        """
        place = pc.index_in(ids.cast(self._first["id"].type), value_set=self._first["id"].combine_chunks())
        first = self._first["time"].combine_chunks().take(place)
        known = ~pc.is_null(first).to_numpy(zero_copy_only=False)
        hours = (times - pc.fill_null(first, 0).to_numpy()) / 3600
        return np.where(known, np.log1p(np.maximum(hours, 0)), np.nan).astype(np.float32)


def _earliest(seen: pa.Table) -> pa.Table:
    return seen.group_by("id").aggregate([("time", "min")]).rename_columns({"time_min": "time"}).select(["id", "time"])
