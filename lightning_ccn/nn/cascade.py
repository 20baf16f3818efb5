"""CRRN's cascade: what the target finds in a sequence, and what the trigger finds within that."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_ccn.data.padding import PaddedBehaviours, Places
from lightning_ccn.nn.attention import TargetAttention

WIDENING = 4  # of the hidden layer after each attention, as printed


class Cascade(nn.Module):
    """V_target = F1(E_target, S) and V_trigger = F2(E_trigger, S weighted as F1 weighs it).

    F is an attention and a feed-forward network around which its input is added. As printed, F2 attends to what F1
    gives, which is a single vector, so that its softmax is 1 and its query without effect. Here, the second attention
    keeps the sequence, and multiplies its weights with those of the first, see `TargetAttention.cascaded`.

    Args:
        dim: Width of an item's embedding; a multiple of `heads`.
        heads: Number of heads of each attention.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.of_target, self.of_trigger = TargetAttention(dim, heads), TargetAttention(dim, heads)
        self.after_target, self.after_trigger = (
            nn.Sequential(nn.Linear(dim, WIDENING * dim), nn.ReLU(), nn.Linear(WIDENING * dim, dim)) for _ in range(2)
        )

    def forward(
        self, target: Tensor, trigger: Tensor, places: Places, item: Tensor, behaviours: PaddedBehaviours
    ) -> tuple[Tensor, Tensor]:
        """The interests of each target.

        Args:
            target: float [items, dim].
            trigger: float [pages, dim].
            places: The page of each target.
            item: float [distinct, dim], the batch's distinct items.
            behaviours: The behaviours of each page.

        Returns:
            V_target and V_trigger, float [items, dim] each; for a page without behaviours, what the feed-forward
            networks make of zeros.
        """
        found, kept = self.of_target.cascaded(target, places, item, behaviours, self.of_trigger, trigger)
        return found + self.after_target(found), kept + self.after_trigger(kept)
