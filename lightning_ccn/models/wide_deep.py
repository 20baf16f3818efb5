"""Wide & Deep (Cheng et al., 2016): crossed ids beside an MLP over pooled embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.models.system import Prediction, System, warn_of_missing_inputs
from lightning_ccn.nn.crosses import HashedCrosses
from lightning_ccn.nn.head import PageMLP
from lightning_ccn.nn.sequence_mean import sequence_mean
from lightning_ccn.nn.tables import ItemKernel, PageEmbedding, TableDtype


class WideDeep(System):
    """Sigmoid(w . crosses(user, target) + MLP(concat(E_user, mean(E_short), E_target))).

    Only the short sequence is pooled. The reader cuts the long one to the categories on the page, so its mean would
    depend on the page's other items; and the part of the target's category would be SIM's search.

    Args:
        dataset: The data to train on or score; its schema sizes the tables.
        dim: Width of each feature's embedding.
        hidden: Widths of the head's hidden layers.
        cross_rows: Rows of the wide part's table.
        item_kernel: Lookup kernel of the tables, see `nn.tables.ItemTables`; `auto` chooses by device.
        table_dtype: Type of the tables' values in memory, see `nn.tables.PageEmbedding`.
    """

    reads_long = False

    def __init__(
        self,
        dataset: Dataset,
        dim: int = 16,
        hidden: Sequence[int] = (128, 64),
        cross_rows: int = 2**20,
        item_kernel: ItemKernel = "auto",
        table_dtype: TableDtype = "fp32",
    ) -> None:
        super().__init__()
        self.embedding = PageEmbedding(dataset.schema, dim, item_kernel, table_dtype)
        user_dim, item_dim = self.embedding.user_dim, self.embedding.item_dim
        crossed = any(not feature.many for feature in dataset.schema.user)
        self.wide = HashedCrosses(dataset.schema, cross_rows) if crossed else None
        warn_of_missing_inputs(
            self,
            dataset,
            profile="there is nothing to cross the items with, so the model has no wide part",
            short="the pooled behaviours are zeros",
        )
        self.deep = PageMLP(user_dim + item_dim, item_dim + self.embedding.number_dim, hidden)

    def forward(self, batch: PageBatch) -> Prediction:
        """logit [items]."""
        e = self.embedding(batch)
        pooled = sequence_mean(e.item, batch.short_of_page)  # [pages, item_dim]
        logit = self.deep(torch.cat([e.user, pooled], 1), torch.cat([e.target, e.numbers], 1), batch.page)
        return Prediction(logit if self.wide is None else logit + self.wide(batch))
