"""Interest extraction: attention of items to a user's two behaviour sequences."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.nn.attention import TargetAttention


class InterestExtraction(nn.Module):
    """concat(MHTA(query, short sequence), MHTA(query, long behaviours of one category)).

    With targets as queries and their own categories, this is SIM. With triggers as queries, it is TAN's trigger-
    sequence interaction. With DIHN's fused embedding and the trigger's category, it reads DIHN's soft and
    hard sequence.

    Args:
        dim: Width of an item's embedding; a multiple of `heads`.
        heads: Number of heads of each attention.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.short, self.long = TargetAttention(dim, heads), TargetAttention(dim, heads)

    def forward(self, query: Tensor, query_lengths: Tensor, group: Tensor, item: Tensor, batch: PageBatch) -> Tensor:
        """Attends each query to both sequences.

        Args:
            query: float [queries, dim], page-major.
            query_lengths: int64 [pages], queries of each page.
            group: int64 [queries], the group of long behaviours that each query attends to.
            item: float [distinct, dim], the batch's distinct items.
            batch: The batch with the sequences.

        Returns:
            float [queries, 2 * dim]; zeros where a sequence is empty.
        """
        short = self.short(query, query_lengths, item, batch.short, batch.short_lengths)
        long = self.long.search(query, group, item, batch.long, batch.long_lengths)
        return torch.cat([short, long], dim=1)

    def of_targets(self, target: Tensor, item: Tensor, batch: PageBatch) -> Tensor:
        """Attends each target [items, dim] to the short sequence and the long behaviours of its own category."""
        interest: Tensor = self(target, batch.page_lengths, batch.target_group, item, batch)
        return interest

    def of_triggers(self, trigger: Tensor, item: Tensor, batch: PageBatch) -> Tensor:
        """Attends each trigger [pages, dim] to the short sequence and the long behaviours of its category."""
        interest: Tensor = self(trigger, torch.ones_like(batch.page_lengths), batch.trigger_group, item, batch)
        return interest
