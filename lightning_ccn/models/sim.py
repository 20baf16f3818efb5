"""SIM, search-based interest (Pi et al., 2020): the long sequence cut to the target's category."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.models.system import Prediction, warn_of_missing_inputs
from lightning_ccn.nn.head import PageMLP
from lightning_ccn.nn.interest import InterestExtraction
from lightning_ccn.nn.tables import ItemKernel, PageEmbedding


class SIM(nn.Module):
    """Sigmoid(MLP(concat(E_user, E_target, MHTA(E_target, short), MHTA(E_target, search(long, target's category))))).

    The search itself is the reader's (`PageBatch.long`), with as many behaviours of a category as `data.long_length`
    says. The paper's baseline, and TAN without trigger, collaborative module and trigger-sequence interaction.

    Args:
        dataset: the data that it will read.
        dim: of each feature's embedding.
        heads: of the target attention.
        hidden: widths of the head's hidden layers.
        item_kernel: how items are looked up; `auto` chooses by device.
    """

    def __init__(
        self,
        dataset: Dataset,
        dim: int = 16,
        heads: int = 4,
        hidden: Sequence[int] = (128, 64),
        item_kernel: ItemKernel = "auto",
    ) -> None:
        super().__init__()
        self.embedding = PageEmbedding(dataset.schema, dim, item_kernel)
        user_dim, item_dim = self.embedding.user_dim, self.embedding.item_dim
        self.interest = InterestExtraction(item_dim, heads)
        self.head = PageMLP(user_dim, 3 * item_dim + len(dataset.schema.numbers), hidden)
        warn_of_missing_inputs(
            self,
            dataset,
            category="the search finds the most recent long behaviours of any kind",
            short="the attention over them gives zeros",
            long="the search finds nothing, and the attention gives zeros",
        )

    def forward(self, batch: PageBatch) -> Prediction:
        """logit [items]."""
        e = self.embedding(batch)
        interest = self.interest.of_targets(e.target, e.item, batch)  # [items, 2 * item_dim]
        return Prediction(self.head(e.user, torch.cat([e.target, interest, batch.numbers], 1), batch.page))

    def auxiliary_losses(self, prediction: Prediction, batch: PageBatch) -> dict[str, tuple[Tensor, float]]:
        """None: SIM learns from clicks alone."""
        return {}
