"""The collaborative module: one degree for each exposed item (Eq. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import embedding as gather

from lightning_ccn.nn.head import PageMLP

Bound = Literal["sigmoid", "none"]


class CollaborativeModule(nn.Module):
    """s = bound(MLP(E_user + (E_item * E_trigger))): how an item stands to this user under this trigger.

    An item's degree does not depend on which item of the page is called the target, so a page of n items needs n
    projections and not n^2; and the degree of a target needs no context, which is why this module serves too.

    Args:
        user_dim, item_dim: widths of E_user and of E_item.
        hidden: widths of the hidden layers.
        bound: `sigmoid` keeps a degree in (0, 1), as the losses' angles need; `none` leaves it free.
        gain: of the product. Embeddings start at +-0.05, their product near 0.001: without a gain the degree would
            not move, and the contrastive losses would teach nothing.
    """

    def __init__(
        self, user_dim: int, item_dim: int, hidden: Sequence[int], bound: Bound = "sigmoid", gain: float = 20.0
    ) -> None:
        super().__init__()
        self.mlp = PageMLP(user_dim, item_dim, hidden)
        self.bound, self.gain = bound, gain

    def forward(self, user: Tensor, target: Tensor, trigger: Tensor, page: Tensor) -> Tensor:
        """The collaborative degree.

        Args:
            user: float [pages, user_dim].
            target: float [items, item_dim].
            trigger: float [pages, item_dim].
            page: int64 [items].

        Returns:
            float [items].
        """
        degree: Tensor = self.mlp(user, self.gain * target * gather(page, trigger), page)
        return degree.sigmoid() if self.bound == "sigmoid" else degree
