"""Means of a segment's items, weighted by a softmax: attention to items that are keys and values at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def weighted_means(queries: Tensor, items: Tensor, bias: Tensor) -> Tensor:
    """softmax(queries items^T + bias) items, for each segment.

    Args:
        queries: float [segments, heads, dim], what each head multiplies an item with for its logit.
        items: float [segments, longest, dim].
        bias: float [segments, 1, longest], added to the logits; without a gradient.

    Returns:
        float [segments, heads, dim].
    """
    if torch.compiler.is_compiling() and queries.is_cuda:
        # the sums of products become part of the kernels that gather the items, which are then never written to memory
        logits = (queries[:, :, None] * items[:, None]).sum(3) + bias
        return (logits.softmax(2)[:, :, :, None] * items[:, None]).sum(2)
    autocast = torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
    if torch.is_grad_enabled() and not (autocast or torch.compiler.is_compiling()):
        means: Tensor = _WeightedMeans.apply(queries, items, bias)
        return means
    return torch.bmm(torch.baddbmm(bias, queries, items.mT).softmax(2), items)


class _WeightedMeans(torch.autograd.Function):
    """The same, with the gradient of the items as one product.

    The items are the largest tensor here, and they are used twice: for the logits and for the means. Autograd would
    write a gradient for each use and add the two up.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, items: Tensor, bias: Tensor) -> Tensor:
        weights = torch.baddbmm(bias, queries, items.mT).softmax(2)  # [segments, heads, longest]
        ctx.save_for_backward(queries, items, weights)
        return torch.bmm(weights, items)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_means: Tensor) -> tuple[Tensor, Tensor, None]:
        queries, items, weights = ctx.saved_tensors
        of_weights = torch.bmm(of_means, items.mT)
        of_logits = weights * (of_weights - (weights * of_weights).sum(2, keepdim=True))  # softmax's backward pass
        # weights^T of_means + of_logits^T queries
        of_items = torch.bmm(torch.cat([weights, of_logits], 1).mT, torch.cat([of_means, queries], 1))
        return torch.bmm(of_logits, items), of_items, None
