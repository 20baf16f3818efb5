"""Crossed features: the wide part of Wide & Deep."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor, PoolingType

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.schema import Schema
from lightning_ccn.nn.tables import table_device

# fbgemm wants a multiple of 4 values a row. A weight is the mean of its row's 4: they start equal, have equal
# gradients and so stay equal, and under AdaGrad move as the single weight would.
COPIES = 4


class HashedCrosses(nn.Module):
    """w . phi(x): a weight for each pair of a profile value and an item value that occur together.

    Every profile feature with one value is crossed with every item feature: user x item, user x category, city x
    seller, and so on. Pairs are far too many for a vocabulary; a 64-bit hash gives each a row of one table, and an
    item's weights are one bag, summed.

    Args:
        schema: features to cross; at least one profile feature has one value.
        rows: of the table. Pairs that share a row share a weight.
    """

    def __init__(self, schema: Schema, rows: int) -> None:
        super().__init__()
        self.of_page = [feature.name for feature in schema.user if not feature.many]
        self.of_item = [feature.name for feature in schema.item]
        self.rows = rows
        self.table = EmbeddingBagCollection(
            device=table_device(),
            tables=[
                EmbeddingBagConfig(
                    name="crosses",
                    embedding_dim=COPIES,
                    num_embeddings=rows,
                    feature_names=["crosses"],
                    pooling=PoolingType.SUM,
                    init_fn=nn.init.zeros_,
                )
            ],
        )

    def forward(self, batch: PageBatch) -> Tensor:
        """float [items], the wide part's logit."""
        ids = pad(self.ids(batch), (0, 0, 0, 1))  # a lookup needs an entry, and a batch may have no item: one of nobody
        bags = KeyedJaggedTensor(
            keys=["crosses"],
            values=ids.flatten(),
            lengths=torch.full((len(ids),), ids.shape[1], device=ids.device),
        )
        weights: Tensor = self.table(bags).values()  # [items + 1, COPIES]
        return weights[:-1].mean(1)

    def ids(self, batch: PageBatch) -> Tensor:
        """int64 [items, crosses]: the row of each pair, never 0."""
        of_page = torch.stack([batch.user[name].values() for name in self.of_page], 1)[batch.page]  # [items, .]
        of_item = torch.stack([batch.item[name].values() for name in self.of_item], 1)[batch.target]  # [items, .]
        pair = (_mixed(of_page)[:, :, None] + of_item[:, None, :]).flatten(1)  # [items, crosses]
        crossing = torch.arange(pair.shape[1], device=pair.device)  # so that equal pairs of other features differ
        return 1 + _mixed(_mixed(pair) + crossing) % (self.rows - 1)


def _mixed(value: Tensor) -> Tensor:
    """splitmix64's finaliser on int64: equal values stay equal, others scatter."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        high = (value >> shift) & ((1 << (64 - shift)) - 1)  # as of an unsigned integer
        value = (value ^ high) * (factor - (1 << 64) if factor >> 63 else factor)
    return value
