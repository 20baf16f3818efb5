"""A listwise loss over a page's logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def listwise_softmax_loss(logit: Tensor, clicks: Tensor, page_lengths: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Cross entropy of a softmax over each page's logits against its clicks.

    `1 / items * sum_pages sum_{i in page} -y_i / (sum_{j in page} y_j) * log softmax_page(logit / temperature)_i`

    It asks which of a page's items were clicked, not whether any was: adding a constant to all logits of a page does
    not change it. A page without clicks, or with a single item, contributes 0. O(items), no padding.

    Args:
        logit: float [items], page-major.
        clicks: [items], any dtype, 0 or 1.
        page_lengths: int64 [pages], sums to `items`; pages may be empty.
        temperature: Divides the logits.

    Returns:
        Scalar, float32 (float64 for float64 logits); for a batch without items a 0 that is still part of the graph.

    Raises:
        ValueError: temperature not positive.

    >>> page = torch.tensor([0.0, 1.0]), torch.tensor([1, 0]), torch.tensor([2])
    >>> round(listwise_softmax_loss(*page).item(), 4)  # log(1 + e) of the page, over 2 items
    0.6566
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it divides the logits and must be above 0")
    scaled = logit.to(torch.promote_types(logit.dtype, torch.float32)) / temperature  # [items]
    clicks = clicks.to(scaled.dtype)
    page = torch.repeat_interleave(page_lengths, output_size=scaled.numel())
    nothing = scaled.new_zeros(page_lengths.numel())  # [pages]
    highest = torch.full_like(nothing, -math.inf).scatter_reduce(0, page, scaled.detach(), "amax")
    relative = scaled - highest[page]
    # Relative to the page's highest logit, the sum is 1 or above. Pages without items get a 1, not a clamp: at a sum of
    # exactly 1, torch 2.14 gives a clamp no gradient.
    total = nothing.index_add(0, page, relative.exp()).masked_fill(page_lengths == 0, 1)
    page_clicks = nothing.index_add(0, page, clicks).clamp(min=1)
    loss = clicks / page_clicks[page] * (total.log()[page] - relative)
    return loss.sum() / max(scaled.numel(), 1)
