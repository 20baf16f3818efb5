"""Lookups in a package's files in the place of TorchRec's collections.

`ccn export` scores pages with them by the code that trains, and compares what the package says to the same pages.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchrec import KeyedJaggedTensor

from lightning_ccn.serving.package import StoredTable


class StoredBags(nn.Module):
    """An `EmbeddingBagCollection` whose rows are in a package's files.

    Args:
        tables: The table of each feature.
    """

    def __init__(self, tables: Mapping[str, StoredTable]) -> None:
        super().__init__()
        self.tables = tables

    def forward(self, features: KeyedJaggedTensor) -> BagsByName:
        """The sums of each bag's rows."""
        return BagsByName({name: _bags(table, features, name) for name, table in self.tables.items()})


class BagsByName:
    """What the layers read of a `KeyedTensor`.

    Args:
        bags: Float [stride, dim] for each feature.
    """

    def __init__(self, bags: dict[str, Tensor]) -> None:
        self._bags = bags

    def to_dict(self) -> dict[str, Tensor]:
        """The bags by feature."""
        return self._bags

    def values(self) -> Tensor:
        """The bags of all features, side by side: float [stride, sum of dims]."""
        return torch.cat(list(self._bags.values()), 1)


def _bags(table: StoredTable, features: KeyedJaggedTensor, name: str) -> Tensor:
    rows, lengths = features[name].values(), features[name].lengths()
    bag = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    vectors = torch.from_numpy(table(rows.numpy()))
    return vectors.new_zeros(len(lengths), vectors.shape[1]).index_add_(0, bag, vectors)
