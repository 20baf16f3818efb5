"""A pairwise ranking loss over a page's logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.padding import Places


def pairwise_loss(logit: Tensor, tier: Tensor, places: Places) -> Tensor:
    """The mean logistic loss of a page's pairs of items of different tiers, such as a clicked and an unclicked one.

    `1 / items * sum_pages items of the page * mean_{i, j: tier_i > tier_j} softplus(logit_j - logit_i)`

    It asks whether a page's items of a higher tier are above those of a lower one, pair by pair (RankNet, Burges et al.
    2005, masked by page as in CRRN's code, but with equal weights for items whatever the length of their page). Adding
    a constant to all logits of a page does not change it. A page of one tier contributes 0 and has no gradient. Memory:
    pages * longest^2 floats.

    Args:
        logit: Float [items], page-major.
        tier: [items], any dtype, from 0 on: clicks, or what `category_tiers` returns.
        places: The page of each item, such as `PageBatch.of_page`.

    Returns:
        Scalar float32 (float64 for float64 logits); for a batch without items a 0 that is still part of the graph.

    >>> of_page = Places(torch.tensor([0, 1, 2]), segments=1, longest=3)
    >>> page = torch.tensor([0.0, 1.0, -1.0]), torch.tensor([1, 0, 0]), of_page
    >>> round(pairwise_loss(*page).item(), 4)  # the mean of log(1 + e) and log(1 + 1 / e), a page of 3 items
    0.8133
    """
    exact = logit.to(torch.promote_types(logit.dtype, torch.float32))
    padded = places.pad(torch.stack([exact, 1 + tier.to(exact.dtype)], 1))  # [pages, longest, 2]; tier 0: no item
    of_item, rank = padded.unbind(2)
    pair = (rank[:, :, None] > rank[:, None]) & (rank[:, None] > 0)  # [pages, longest, longest]
    loss = softplus(of_item[:, None] - of_item[:, :, None]) * pair
    of_page = (rank > 0).sum(1) * loss.sum((1, 2)) / pair.sum((1, 2)).clamp(min=1)
    return of_page.sum() / max(exact.numel(), 1)


def category_tiers(batch: PageBatch, category: str | None) -> Tensor:
    """CRRN's tiers: 3 and 2 for a click on an item of the trigger's category and on another, 1 and 0 without a click.

    Args:
        batch: A batch with clicks.
        category: Name of the item feature that holds the category; None: the tiers are the clicks.

    Returns:
        float32 [items].
    """
    assert batch.clicks is not None, "tiers are made of clicks"
    return batch.clicks if category is None else 2 * batch.clicks + batch.same_as_trigger(category)
