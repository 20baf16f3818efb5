"""The intent: did the user enter the promotion because of the trigger, or to look around?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.nn.interest import InterestExtraction
from lightning_ccn.nn.tables import Embedded


class IntentNet(nn.Module):
    """The logit of P(entered because of the trigger) = MLP(concat(E_user, E_trigger, trigger's interest)).

    It sees the user, the trigger and the trigger's attention over the behaviour sequences. It sees no exposed item,
    because the user decided to enter before seeing one.

    Args:
        user_dim, item_dim: Widths of E_user and E_trigger.
        heads: Number of heads of the trigger's attention over the sequences.
        hidden: Width of the hidden layer.
    """

    def __init__(self, user_dim: int, item_dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.interest = InterestExtraction(item_dim, heads)
        self.mlp = nn.Sequential(nn.Linear(user_dim + 3 * item_dim, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, e: Embedded, batch: PageBatch) -> Tensor:
        """float [pages], a logit."""
        interest = self.interest.of_triggers(e.trigger, e.item, batch)  # [pages, 2 * item_dim]
        intent: Tensor = self.mlp(torch.cat([e.user, e.trigger, interest], dim=1)).squeeze(1)
        return intent


def intent_label(batch: PageBatch, category: str) -> Tensor:
    """The intent's label: did the user click an item of the trigger's category on this page?

    No log records the intent, so clicks stand in for it. A page without a trigger, or whose trigger has an unknown
    category (row 0), has label 0.

    Args:
        batch: A batch with clicks.
        category: Name of the item feature that holds the category.

    Returns:
        float32 [pages] in {0, 1}.
    """
    assert batch.clicks is not None, "the label is derived from clicks"
    clicks_alike = batch.clicks.float() * batch.same_as_trigger(category)  # [items]
    of_page = torch.zeros_like(batch.trigger, dtype=torch.float32).index_add(0, batch.page, clicks_alike)
    return of_page.clamp(max=1)


def intent_loss(intent: Tensor, batch: PageBatch, category: str) -> Tensor:
    """Cross entropy of the intent against `intent_label`, averaged over items: each item counts with its page's loss.

    Args:
        intent: float [pages], the logit.
        batch, category: See `intent_label`.

    Returns:
        Scalar float32; for a batch without items a 0 that is still part of the graph.
    """
    loss = binary_cross_entropy_with_logits(intent.float(), intent_label(batch, category), reduction="none")  # [pages]
    return loss[batch.page].sum() / max(batch.items, 1)
