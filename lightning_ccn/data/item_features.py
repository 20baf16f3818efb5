"""What a batch has of its distinct items: features, vectors and numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torchrec import KeyedJaggedTensor

from lightning_ccn.data.batch import keyed_jagged
from lightning_ccn.data.item_vectors import NOT_FINITE
from lightning_ccn.data.page_row import ITEM
from lightning_ccn.data.parquet import list_column, value_column
from lightning_ccn.data.ragged import Ragged, rows_of
from lightning_ccn.data.schema import Schema
from lightning_ccn.errors import DataError


class ItemFeatures:
    """Looks the columns of items up.

    Args:
        schema: Schema of the dataset.
        items: Columns of items.parquet by name, as `rules.read_items` returns them.
        vectors: Vectors of items by name, floats [rows of the item table, width] each.
    """

    def __init__(
        self, schema: Schema, items: Mapping[str, np.ndarray | Ragged], vectors: Mapping[str, np.ndarray]
    ) -> None:
        self._schema, self._items, self._vectors = schema, items, vectors
        self._single = [feature.name for feature in schema.attributes if not feature.many]
        self._many = [feature.name for feature in schema.attributes if feature.many]

    def features(self, distinct: np.ndarray) -> tuple[KeyedJaggedTensor, Tensor, KeyedJaggedTensor | None]:
        """The distinct values of each item feature, and which of its attributes' values each item has."""
        names, values, places = [ITEM], [distinct], []
        for name in self._single:
            of_feature, (place,) = distinct_rows([value_column(self._items, name)[distinct]])
            names.append(name)
            values.append(of_feature)
            places.append(place)
        lists = None
        if self._many:
            own = [rows_of(list_column(self._items, name), distinct) for name in self._many]
            found = [distinct_rows([column.values]) for column in own]
            names += self._many
            values += [of_feature for of_feature, _ in found]
            at = [place for _, (place,) in found]
            lists = keyed(self._many, at, [column.lengths for column in own], len(distinct))
        stride = max(len(of_feature) for of_feature in values)
        lengths = [np.arange(stride) < len(of_feature) for of_feature in values]
        attribute = np.array(places, np.int64).reshape(len(places), len(distinct))
        return keyed(names, values, lengths, stride), torch.from_numpy(attribute), lists

    def logarithms(self, distinct: np.ndarray) -> Tensor:
        """The logarithms of the numbers whose ratio to the trigger counts: float32 [distinct, names]."""
        names = self._schema.ratio_to_trigger
        logs = np.log(np.stack([value_column(self._items, name)[distinct] for name in names], 1), dtype=np.float32)
        return float32(logs)

    def frozen_vectors(self, distinct: np.ndarray) -> Tensor:
        """The vectors of items side by side: float32 [distinct, sum of the widths]."""
        parts = [self._vectors[name][distinct] for name in self._schema.vectors]
        joined = np.concatenate(parts, axis=1, dtype=np.float32)
        if not np.isfinite(joined).all():
            name, row = next(
                (name, distinct[wrong[0]])
                for name, part in zip(self._schema.vectors, parts, strict=True)
                if len(wrong := np.flatnonzero(~np.isfinite(part).all(1)))
            )
            raise DataError(f"vectors/{name}.npy: row {row}: {NOT_FINITE}")
        return float32(joined)


def distinct_rows(places: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The distinct item rows, in the order in which they are met, and where each of the given rows is among them.

    Arrow's hash table neither sorts the rows nor needs memory for every row of the item table.
    """
    encoded = pa.array(np.concatenate(places)).dictionary_encode()
    at = encoded.indices.to_numpy()
    return encoded.dictionary.to_numpy(), np.split(at, np.cumsum([len(rows) for rows in places[:-1]]))


def int64(values: np.ndarray) -> Tensor:
    """A tensor of the same values."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))


def float32(values: np.ndarray) -> Tensor:
    """A tensor of the same values, in memory of PyTorch's own: floats at other addresses may be summed up otherwise."""
    return torch.tensor(values, dtype=torch.float32)


def keyed(names: list[str], values: list[np.ndarray], lengths: list[np.ndarray], stride: int) -> KeyedJaggedTensor:
    """Values and lengths by key, one array each."""
    return keyed_jagged(
        names,
        int64(np.concatenate(values) if values else np.zeros(0)),
        int64(np.concatenate(lengths) if lengths else np.zeros(0)),
        stride,
        [len(of_key) for of_key in values],
    )
