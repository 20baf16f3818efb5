"""Interest extraction: attention of items to a user's two behaviour sequences."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.padding import Places
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

    def of_targets(self, target: Tensor, item: Tensor, batch: PageBatch) -> Tensor:
        """Attends each target to the short sequence and to the long behaviours of its own category.

        Args:
            target: float [items, dim].
            item: float [distinct, dim], the batch's distinct items.
            batch: The batch with the sequences.

        Returns:
            float [items, 2 * dim]; zeros where a sequence is empty.
        """
        short = self.short(target, batch.of_page, item, batch.short_of_page)
        long = self.long(target, batch.each_target, item, batch.long_of_target)
        return torch.cat([short, long], dim=1)

    def of_triggers(self, trigger: Tensor, item: Tensor, batch: PageBatch) -> Tensor:
        """Attends each trigger, float [pages, dim], to both sequences as `by_trigger` does: float [pages, 2 * dim]."""
        return self.by_trigger(trigger, batch.each_page, item, batch)

    def by_trigger(self, query: Tensor, places: Places, item: Tensor, batch: PageBatch) -> Tensor:
        """Attends each query to its page's short sequence, and to the long behaviours of its trigger's category.

        Args:
            query: float [queries, dim].
            places: The page of each query.
            item, batch: See `of_targets`.

        Returns:
            float [queries, 2 * dim]; zeros where a sequence is empty.
        """
        short = self.short(query, places, item, batch.short_of_page)
        long = self.long(query, places, item, batch.long_of_trigger)
        return torch.cat([short, long], dim=1)
