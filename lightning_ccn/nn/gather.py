"""Rows of a tensor by index, with the backward pass that suits the device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding


def gather(index: Tensor, rows: Tensor) -> Tensor:
    """`rows[index]`.

    `embedding` and `index_select` give the same values, and differ in how the backward pass adds up the gradients of
    equal indices. On a CPU, `embedding` is faster. On a GPU it sorts the indices first, in two dozen kernels, and
    `index_select` adds with atomics, in two. The order of atomics is not fixed, so deterministic runs sort.

    Args:
        index: int64 of any shape.
        rows: float [rows, dim].

    Returns:
        float [*index.shape, dim].
    """
    if not rows.is_cuda or torch.are_deterministic_algorithms_enabled():
        return embedding(index, rows)
    return rows.index_select(0, index.flatten()).view(*index.shape, rows.shape[1])
