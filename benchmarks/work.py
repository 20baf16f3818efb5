"""Counts the work of PyTorch code: floating-point operations, and bytes that its operations read and write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

Shape = Sequence[int]


@dataclass
class Work:
    """The work of a piece of code.

    Attributes:
        flops: Floating-point operations of its matrix products and attentions; a multiplication and an addition are
            two.
        bytes: What its operations read and write, each operation by itself: two operations that a compiler would fuse
            count twice. Views cost nothing.
    """

    flops: int = 0
    bytes: int = 0


@contextmanager
def counted() -> Iterator[Work]:
    """Counts the work inside of the context; the numbers are there when it ends."""
    work = Work()
    aten = torch.ops.aten
    of_cpu = {  # PyTorch's counter knows the attention of GPUs only
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=of_cpu) as flops, _Bytes() as moved:
        yield work
    work.flops, work.bytes = flops.get_total_flops(), moved.total


class _Bytes(TorchDispatchMode):
    """Adds up the sizes of what operations read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if not getattr(func, "is_view", False):
            tensors = [leaf for leaf in tree_leaves((args, kwargs, output)) if isinstance(leaf, Tensor)]
            self.total += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return output


def _attention(query: Shape, key: Shape, value: Shape, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(
    grad: Shape, query: Shape, key: Shape, value: Shape, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))
