"""Many small tensors in one buffer: one copy to a GPU instead of twenty."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

WORD = 8  # bytes; every tensor starts at a whole word, so the buffer can be split without a copy


def pack(tensors: Sequence[Tensor], pin_memory: bool = False) -> Tensor:
    """A buffer with the values of CPU tensors, one after the other.

    Args:
        tensors: Contiguous, of any dtype and shape.
        pin_memory: Whether the buffer is page-locked, from where a GPU can copy while the host goes on.

    Returns:
        int64 [words].
    """
    words = [_words(tensor) for tensor in tensors]
    buffer = torch.empty(sum(len(w) for w in words), dtype=torch.int64, pin_memory=pin_memory)
    return torch.cat(words, out=buffer)


def unpack(buffer: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The tensors in a buffer, as views of it, on its device.

    Args:
        buffer: int64 [words], what `pack` returned, or a copy of it on another device.
        like: Tensors of the dtypes and shapes that were packed.

    >>> some = [torch.tensor([[0.5, 1.5, 2.5]]), torch.tensor([3, 4])]
    >>> unpack(pack(some), some)
    [tensor([[0.5000, 1.5000, 2.5000]]), tensor([3, 4])]
    """
    parts = buffer.split([math.ceil(tensor.nbytes / WORD) for tensor in like])
    return [
        part if tensor.dtype == torch.int64 and tensor.dim() == 1 else _as(part, tensor)
        for part, tensor in zip(parts, like, strict=True)
    ]


def _as(part: Tensor, like: Tensor) -> Tensor:
    return part.view(like.dtype)[: like.numel()].view(like.shape)


def _words(tensor: Tensor) -> Tensor:
    """The tensor's bytes as int64 [words], the last one filled up with zeros."""
    if not tensor.numel():
        return torch.empty(0, dtype=torch.int64)
    flat = tensor.flatten().view(torch.uint8)
    missing = -len(flat) % WORD
    return (torch.nn.functional.pad(flat, (0, missing)) if missing else flat).view(torch.int64)
