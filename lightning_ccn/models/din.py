"""DIN, the deep interest network (Zhou et al., 2018): an activation unit over the short sequence."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.models.system import Prediction, System, warn_of_missing_inputs
from lightning_ccn.nn.activation_unit import Activation, ActivationUnit
from lightning_ccn.nn.head import PageMLP
from lightning_ccn.nn.tables import ItemKernel, PageEmbedding, TableDtype


class DIN(System):
    """Sigmoid(MLP(concat(E_user, E_target, sum_j a(e_j, E_target) e_j))), j over the short sequence.

    Args:
        dataset: The data to train on or score; its schema sizes the tables.
        dim: Width of each feature's embedding.
        hidden: Widths of the head's hidden layers.
        activation: Activation of the activation unit: `prelu`, or `dice`, which adapts to the data (see `nn.dice`).
        item_kernel: Lookup kernel of the tables, see `nn.tables.ItemTables`; `auto` chooses by device.
        table_dtype: Type of the tables' values in memory, see `nn.tables.PageEmbedding`.
    """

    reads_long = False

    def __init__(
        self,
        dataset: Dataset,
        dim: int = 16,
        hidden: Sequence[int] = (128, 64),
        activation: Activation = "prelu",
        item_kernel: ItemKernel = "auto",
        table_dtype: TableDtype = "fp32",
    ) -> None:
        super().__init__()
        self.embedding = PageEmbedding(dataset.schema, dim, item_kernel, table_dtype)
        user_dim, item_dim = self.embedding.user_dim, self.embedding.item_dim
        self.activation_unit = ActivationUnit(item_dim, activation=activation)
        self.head = PageMLP(user_dim, 2 * item_dim + self.embedding.number_dim, hidden)
        warn_of_missing_inputs(
            self, dataset, short="the activation unit returns zeros, and only user and target are scored"
        )

    def forward(self, batch: PageBatch) -> Prediction:
        """logit [items]."""
        e = self.embedding(batch)
        interest = self.activation_unit(e.target, batch.of_page, e.item, batch.short_of_page)  # [items, item_dim]
        return Prediction(self.head(e.user, torch.cat([e.target, interest, e.numbers], 1), batch.page))
