"""The collaborative module: one collaborative degree per exposed item (Eq. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from lightning_ccn.nn.gather import gather
from lightning_ccn.nn.head import PageMLP

Bound = Literal["sigmoid", "none"]
HeadReads = Literal["degree", "logit"]


class CollaborativeModule(nn.Module):
    """s = bound(MLP(concat(E_user, E_item * E_trigger))).

    The collaborative degree s of an item is a scalar that says how well the item fits this user after this trigger.
    The contrastive losses compare the degrees of a page's items; the head reads the target's degree as a feature.

    An item's degree does not depend on which item of the page is the target, so a page of n items needs n projections,
    not n^2. It does not need the context either, which is why scoring keeps this module.

    Args:
        user_dim, item_dim: Widths of E_user and E_item.
        hidden: Widths of the hidden layers.
        bound: `sigmoid` keeps a degree within (0, 1), as the angles of the attraction loss require; `none` leaves it
            unbounded.
        gain: Factor on the product. Embeddings start within +-0.05 and their product near 0.001; without a gain, the
            degree would barely move and the contrastive losses would teach nothing.
    """

    def __init__(
        self, user_dim: int, item_dim: int, hidden: Sequence[int], bound: Bound = "sigmoid", gain: float = 20.0
    ) -> None:
        super().__init__()
        self.mlp = PageMLP(user_dim, item_dim, hidden)
        self.bound, self.gain = bound, gain

    def forward(self, user: Tensor, target: Tensor, trigger: Tensor, page: Tensor) -> tuple[Tensor, Tensor]:
        """The collaborative degree of every exposed item, and the same without its bound.

        Args:
            user: float [pages, user_dim].
            target: float [items, item_dim].
            trigger: float [pages, item_dim].
            page: int64 [items].

        Returns:
            float [items] each.
        """
        free: Tensor = self.mlp(user, self.gain * target * gather(page, trigger), page)
        return (free.sigmoid() if self.bound == "sigmoid" else free), free
