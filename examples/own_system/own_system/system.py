"""`TriggerMatch`: does the target look like the trigger? A small system with a loss of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding as gather

from lightning_ccn import Prediction, System
from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.nn.head import PageMLP
from lightning_ccn.nn.tables import PageEmbedding


class TriggerMatch(System):
    """Sigmoid(MLP(concat(E_user, E_trigger, E_target, E_target * E_trigger))).

    Args:
        dataset: The data to train on or score; its schema sizes the tables.
        dim: Width of each feature's embedding.
        hidden: Widths of the head's hidden layers.
        shrinkage: Weight of the loss that keeps logits small.
    """

    def __init__(
        self, dataset: Dataset, dim: int = 8, hidden: Sequence[int] = (32, 16), shrinkage: float = 0.01
    ) -> None:
        super().__init__()
        self.embedding = PageEmbedding(dataset.schema, dim)
        user_dim, item_dim = self.embedding.user_dim, self.embedding.item_dim
        self.head = PageMLP(user_dim + item_dim, 2 * item_dim + self.embedding.number_dim, hidden)
        self.shrinkage = shrinkage

    def forward(self, batch: PageBatch) -> Prediction:
        """logit [items]."""
        e = self.embedding(batch)
        match = e.target * gather(batch.page, e.trigger)  # [items, item_dim]
        of_page = torch.cat([e.user, e.trigger], 1)  # [pages, user_dim + item_dim]
        of_item = torch.cat([e.target, match, e.numbers], 1)  # [items, .]
        return Prediction(self.head(of_page, of_item, batch.page))

    def auxiliary_losses(self, prediction: Prediction, batch: PageBatch) -> dict[str, tuple[Tensor, float]]:
        """A loss is a function of the prediction and the batch; it is logged as `train_shrinkage`."""
        return {"shrinkage": (prediction.logit.float().square().sum() / max(batch.items, 1), self.shrinkage)}
