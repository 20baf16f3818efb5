"""Why the user entered: for the trigger, or for the page as such."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.nn.interest import InterestExtraction
from lightning_ccn.nn.tables import Embedded


class IntentNet(nn.Module):
    """logit of P(the entry is due to the trigger) = MLP(concat(E_user, E_trigger, trigger's interest)).

    It sees the user, the trigger and what in the sequences answers to the trigger; no exposed item, since the user
    decided to enter before seeing one.

    Args:
        user_dim, item_dim: widths of E_user and of E_trigger.
        heads: of the trigger's attention over the sequences.
        hidden: width of the hidden layer.
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
    """Whether the user clicked something of the trigger's category on this page: the label where the log has none.

    A page without a trigger, or with one of unknown category (row 0), was not entered for it: 0.

    Args:
        batch: with clicks.
        category: name of the item feature that is the category.

    Returns:
        float32 [pages] in {0, 1}.
    """
    assert batch.clicks is not None, "the label is made of clicks"
    of_item = batch.item[category].values()  # [distinct]
    of_trigger, page = of_item[batch.trigger], batch.page
    alike = (of_item[batch.target] == of_trigger[page]) & (of_trigger[page] != 0)  # [items]
    clicks_alike = torch.zeros_like(of_trigger, dtype=torch.float32).index_add(0, page, batch.clicks.float() * alike)
    return clicks_alike.clamp(max=1)


def intent_loss(intent: Tensor, batch: PageBatch, category: str) -> Tensor:
    """Cross entropy of the intent against `intent_label`, mean over items: each item has its page's, as in a log
    with one row an item.

    Args:
        intent: float [pages], the logit.
        batch, category: see `intent_label`.

    Returns:
        Scalar float32; of no items a 0 that is part of the graph all the same.
    """
    loss = binary_cross_entropy_with_logits(intent.float(), intent_label(batch, category), reduction="none")  # [pages]
    return loss[batch.page].sum() / max(batch.items, 1)
