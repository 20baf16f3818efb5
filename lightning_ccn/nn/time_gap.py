"""Time in behaviour sequences: a behaviour is an item, and how long ago it was."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_ccn.data.time_gaps import BUCKETS


class TimedItems(nn.Module):
    """W_item E_item + W_time E_gap, the two terms apart: one row per distinct item, and one per bucket of gaps.

    So nothing is computed per behaviour but the sum, which `TargetAttention` does.

    Args:
        item_dim: Width of an item's embedding.
        time_dim: Width of a gap's embedding.
        timed: Whether there is a term for time.
    """

    def __init__(self, item_dim: int, time_dim: int, timed: bool) -> None:
        super().__init__()
        self.of_item = nn.Linear(item_dim, item_dim, bias=False)
        self.gap = nn.Embedding(BUCKETS, time_dim) if timed else None
        if self.gap is not None:
            nn.init.uniform_(self.gap.weight, -0.05, 0.05)  # as small as the rows of items
            self.of_gap = nn.Linear(time_dim, item_dim, bias=False)

    def forward(self, item: Tensor) -> tuple[Tensor, Tensor | None]:
        """float [distinct, item_dim] -> the same, and float [BUCKETS, item_dim] or None."""
        return self.of_item(item), None if self.gap is None else self.of_gap(self.gap.weight)
