"""SIM, the search-based interest model (Pi et al., 2020): attention to the long behaviours of the target's category."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.models.system import Prediction, System, warn_of_missing_inputs
from lightning_ccn.nn.head import PageMLP
from lightning_ccn.nn.interest import InterestExtraction
from lightning_ccn.nn.tables import ItemKernel, PageEmbedding, TableDtype


class SIM(System):
    """Sigmoid(MLP(concat(E_user, E_target, MHTA(E_target, short), MHTA(E_target, search(long, target's category))))).

    The reader does the search (`PageBatch.long`) and keeps up to `data.long_length` behaviours of each category. SIM is
    the paper's baseline: TAN without trigger, collaborative module and trigger-sequence interaction.

    Args:
        dataset: The data to train on or score; its schema sizes the tables.
        dim: Width of each feature's embedding.
        heads: Number of attention heads.
        hidden: Widths of the head's hidden layers.
        item_kernel: Lookup kernel of the tables, see `nn.tables.ItemTables`; `auto` chooses by device.
        table_dtype: Type of the tables' values in memory, see `nn.tables.PageEmbedding`.
    """

    def __init__(
        self,
        dataset: Dataset,
        dim: int = 16,
        heads: int = 4,
        hidden: Sequence[int] = (128, 64),
        item_kernel: ItemKernel = "auto",
        table_dtype: TableDtype = "fp32",
    ) -> None:
        super().__init__()
        self.embedding = PageEmbedding(dataset.schema, dim, item_kernel, table_dtype)
        user_dim, item_dim = self.embedding.user_dim, self.embedding.item_dim
        self.interest = InterestExtraction(item_dim, heads)
        self.head = PageMLP(user_dim, 3 * item_dim + self.embedding.number_dim, hidden)
        warn_of_missing_inputs(
            self,
            dataset,
            category="the search returns the most recent long behaviours of any category",
            short="its attention returns zeros",
            long="the search finds nothing, and its attention returns zeros",
        )

    def forward(self, batch: PageBatch) -> Prediction:
        """logit [items]."""
        e = self.embedding(batch)
        interest = self.interest.of_targets(e.target, e.item, batch)  # [items, 2 * item_dim]
        return Prediction(self.head(e.user, torch.cat([e.target, interest, e.numbers], 1), batch.page))
