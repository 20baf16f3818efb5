"""TAN: the trigger-aware network, CCN's backbone (Figure 3 without the contrastive losses)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.models.system import Prediction, warn_of_missing_inputs
from lightning_ccn.nn.attention import TargetAttention
from lightning_ccn.nn.collaborative import Bound, CollaborativeModule
from lightning_ccn.nn.head import PageMLP
from lightning_ccn.nn.tables import ItemKernel, PageEmbedding


class TAN(nn.Module):
    """Sigmoid(MLP(concat(E_user, E_target, E_trigger, H_tsi, s_target))), Eq. 3.

    Args:
        dataset: the data that it will read.
        dim: of each feature's embedding.
        heads: of the target attention.
        hidden: widths of the head's hidden layers.
        collaborative: have the collaborative module and its s_target (CM in the paper's table).
        trigger_interaction: have the trigger's own attention over the sequences (TSI in the paper's table).
        bound: of the collaborative degree.
        gain: of the product in the collaborative module.
        item_kernel: how items are looked up; `auto` chooses by device.
    """

    def __init__(
        self,
        dataset: Dataset,
        dim: int = 16,
        heads: int = 4,
        hidden: Sequence[int] = (128, 64),
        collaborative: bool = True,
        trigger_interaction: bool = True,
        bound: Bound = "sigmoid",
        gain: float = 20.0,
        item_kernel: ItemKernel = "auto",
    ) -> None:
        super().__init__()
        self.embedding = PageEmbedding(dataset.schema, dim, item_kernel)
        user_dim, item_dim = self.embedding.user_dim, self.embedding.item_dim
        self.target_short = TargetAttention(item_dim, heads)
        self.target_long = TargetAttention(item_dim, heads)
        page_dim, per_item_dim = user_dim + item_dim, 3 * item_dim + len(dataset.schema.numbers)
        self.trigger_interaction, self.has_degree = trigger_interaction, collaborative
        if trigger_interaction:
            self.trigger_short = TargetAttention(item_dim, heads)
            self.trigger_long = TargetAttention(item_dim, heads)
            page_dim += 2 * item_dim
        if collaborative:
            self.collaborative = CollaborativeModule(user_dim, item_dim, hidden[-1:], bound, gain)
            per_item_dim += 1
        self.head = PageMLP(page_dim, per_item_dim, hidden)
        warn_of_missing_inputs(
            self,
            dataset,
            trigger="the unknown item stands for it and tells no page from another: what is left is close to SIM",
            category="the search finds the most recent long behaviours of any kind",
            short="the attention over them gives zeros",
            long="the search finds nothing, and the attention gives zeros",
        )

    def forward(self, batch: PageBatch) -> Prediction:
        """logit [items], degree [items] or None."""
        e = self.embedding(batch)
        page = batch.page
        of_page = [e.user, e.trigger]  # [pages, .]
        of_item = [  # [items, .]
            e.target,
            self.target_short(e.target, batch.page_lengths, e.item, batch.short, batch.short_lengths),
            self.target_long.search(e.target, batch.target_group, e.item, batch.long, batch.long_lengths),
            batch.numbers,
        ]
        if self.trigger_interaction:
            one = torch.ones_like(batch.page_lengths)
            of_page += [
                self.trigger_short(e.trigger, one, e.item, batch.short, batch.short_lengths),
                self.trigger_long.search(e.trigger, batch.trigger_group, e.item, batch.long, batch.long_lengths),
            ]
        degree = None
        if self.has_degree:
            degree = self.collaborative(e.user, e.target, e.trigger, page)
            of_item.append(degree[:, None])
        return Prediction(self.head(torch.cat(of_page, 1), torch.cat(of_item, 1), page), degree)

    def auxiliary_losses(self, prediction: Prediction, batch: PageBatch) -> dict[str, tuple[Tensor, float]]:
        """None: TAN learns from clicks alone."""
        return {}
