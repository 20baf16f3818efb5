"""Rows of a tensor by index, with the backward pass that suits the device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding


def gather(index: Tensor, rows: Tensor) -> Tensor:
    """`rows[index]`.

    `index_select` and `embedding` give the same values, and differ in how the backward pass adds up the gradients of
    equal indices. On a CPU, that of `index_select` is shorter. On a GPU it adds with atomics, in two kernels, whose
    order is not fixed; `embedding` sorts the indices first, in two dozen, so deterministic runs use it.

    Args:
        index: int64 [any number].
        rows: float [rows, dim].

    Returns:
        float [any number, dim].
    """
    if torch.are_deterministic_algorithms_enabled() and rows.is_cuda:
        return embedding(index, rows)
    return rows.index_select(0, index)


def gather_padded(index: Tensor, rows: Tensor) -> Tensor:
    """The same for an index int64 [segments, longest]: float [segments, longest, dim]."""
    return gather(index.flatten(), rows).unflatten(0, index.shape)
