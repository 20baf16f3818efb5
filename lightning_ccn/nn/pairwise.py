"""A pairwise ranking loss over a page's logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lightning_ccn.data.padding import Places


def pairwise_loss(logit: Tensor, clicks: Tensor, places: Places) -> Tensor:
    """The mean logistic loss of a page's pairs of a clicked and an unclicked item.

    `1 / items * sum_pages items of the page * mean_{i clicked, j not} softplus(logit_j - logit_i)`

    It asks whether a page's clicked items are above the others, pair by pair (RankNet, Burges et al. 2005, masked by
    page as in CRRN's code, but with equal weights for items whatever the length of their page). Adding a constant to
    all logits of a page does not change it. A page without both labels contributes 0 and has no gradient. Memory:
    pages * longest^2 floats.

    Args:
        logit: Float [items], page-major.
        clicks: [items], any dtype, 0 or 1.
        places: The page of each item, such as `PageBatch.of_page`.

    Returns:
        Scalar float32 (float64 for float64 logits); for a batch without items a 0 that is still part of the graph.

    >>> of_page = Places(torch.tensor([0, 1, 2]), segments=1, longest=3)
    >>> page = torch.tensor([0.0, 1.0, -1.0]), torch.tensor([1, 0, 0]), of_page
    >>> round(pairwise_loss(*page).item(), 4)  # the mean of log(1 + e) and log(1 + 1 / e), a page of 3 items
    0.8133
    """
    exact = logit.to(torch.promote_types(logit.dtype, torch.float32))
    clicked = clicks.to(exact.dtype)
    padded = places.pad(torch.stack([exact, clicked, 1 - clicked], 1))  # [pages, longest, 3]
    of_item, above, below = padded.unbind(2)
    pair = above[:, :, None] * below[:, None]  # [pages, longest, longest], 1 for a clicked and an unclicked item
    loss = softplus(of_item[:, None] - of_item[:, :, None]) * pair
    items = above.sum(1) + below.sum(1)
    of_page = items * loss.sum((1, 2)) / pair.sum((1, 2)).clamp(min=1)
    return of_page.sum() / max(exact.numel(), 1)
