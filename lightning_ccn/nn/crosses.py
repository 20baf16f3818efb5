"""Crossed features: the wide part of Wide & Deep."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, PoolingType

from lightning_ccn.data.batch import PageBatch, keyed_jagged
from lightning_ccn.data.schema import Schema
from lightning_ccn.data.splitmix64 import splitmix64
from lightning_ccn.nn.tables import table_device

# fbgemm needs a multiple of 4 values per row. A weight is the mean of its row's 4 values: they start equal and get
# equal gradients, so they stay equal, and under AdaGrad they move as a single weight would.
COPIES = 4


class HashedCrosses(nn.Module):
    """w . phi(x): one weight per pair of a profile value and an item value.

    Every profile feature with one value is crossed with every item feature with one value: user x item, user x
    category, city x seller, and so on. Features with many values have no crosses; the deep part has them. There are far
    too many pairs for a vocabulary, so a 64-bit hash maps each pair to a row of one table. The weights of an item are
    one bag, summed.

    Args:
        schema: The features to cross; at least one profile feature has a single value.
        rows: Rows of the table. Pairs that share a row share a weight.
    """

    def __init__(self, schema: Schema, rows: int) -> None:
        super().__init__()
        self.of_page = [feature.name for feature in schema.user if not feature.many]
        self.of_item = [feature.name for feature in schema.item if not feature.many]
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

    @torch.compiler.disable  # ids travel between ranks here
    def forward(self, batch: PageBatch) -> Tensor:
        """float [items], the wide part's logit."""
        ids = pad(self.ids(batch), (0, 0, 0, 1))  # a lookup needs an entry, and a batch may be empty
        items, crosses = ids.shape
        lengths = torch.full((items,), crosses, device=ids.device)
        bags = keyed_jagged(["crosses"], ids.flatten(), lengths, items, [items * crosses])
        weights: Tensor = self.table(bags).values()  # [items + 1, COPIES]
        return weights[:-1].mean(1)

    def ids(self, batch: PageBatch) -> Tensor:
        """int64 [items, crosses]: the table row of each pair; never 0, the unknown row."""
        of_page = torch.stack([batch.user[name].values() for name in self.of_page], 1)[batch.page]  # [items, .]
        of_item = torch.stack([batch.feature_of_item(name) for name in self.of_item], 1)[batch.target]  # [items, .]
        pair = (splitmix64(of_page)[:, :, None] + of_item[:, None, :]).flatten(1)  # [items, crosses]
        crossing = torch.arange(pair.shape[1], device=pair.device)  # equal values of other feature pairs get other rows
        return 1 + splitmix64(splitmix64(pair) + crossing) % (self.rows - 1)
