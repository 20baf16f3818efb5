"""What the metrics of click prediction have in common: sums over batches and ranks, and when they are undefined."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, distributed
from torchmetrics import Metric


class SummedMetric(Metric):
    """A metric whose states are sums: over batches, and in `compute` over ranks.

    `compute` covers all batches and ranks since `reset`. With several ranks, it is a collective call.
    """

    full_state_update = False

    def __init__(self) -> None:
        super().__init__(dist_sync_fn=_sum_over_ranks, distributed_available_fn=_several_ranks)

    def add_sum(self, name: str, dtype: torch.dtype, *shape: int) -> None:
        """Adds a state that starts at zero; a scalar unless a shape is given."""
        self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")


class ClickMetric(SummedMetric):
    """Base class of the metrics in `metrics.METRICS`; `compute` gives a float64 scalar.

    A subclass sets `title` and `higher_is_better`, adds its sums in `__init__`, fills them in `update`, and defines
    `value`. A subclass that inherits `update` from another metric shares that metric's sums.

    Attributes:
        title: Name in tables and figures.
        higher_is_better: Which checkpoint is best if the metric is monitored; None: neither high nor low is better.
        undefined: Why the last `compute` gave NaN; None if it did not.
    """

    title: ClassVar[str]
    higher_is_better: bool | None = None
    undefined: str | None = None

    items: Tensor
    clicks: Tensor
    broken: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("items", "clicks", "broken"):
            self.add_sum(name, torch.int64)

    def update(self, logits: Tensor, clicks: Tensor) -> None:
        """Adds a batch, which may be empty.

        Args:
            logits: Float [items].
            clicks: [items] of any dtype, 0 or 1.

        Raises:
            ValueError: The shapes differ or are not [items].
        """
        if logits.dim() != 1 or logits.shape != clicks.shape:
            raise ValueError(f"logits are {list(logits.shape)}, clicks {list(clicks.shape)}; both must be [items]")
        self.items += logits.numel()
        self.clicks += (clicks > 0).sum()
        self.broken += (~logits.isfinite()).sum()

    def compute(self) -> Tensor:
        """The metric, NaN where it is undefined."""
        self.undefined = self.why_undefined()
        return self.value() if self.undefined is None else self.items.new_full((), torch.nan, dtype=torch.float64)

    @abstractmethod
    def value(self) -> Tensor:
        """The metric where it is defined."""

    def why_undefined(self) -> str | None:
        """Why `value` is undefined for the data so far; None where it is defined."""
        if self.items == 0:
            return "no impression was seen"
        if self.broken > 0:
            return f"{self.broken} of the {self.items} logits are NaN or infinite"
        return None

    def _one_label(self) -> str | None:
        if self.clicks == 0:
            return f"every one of the {self.items} labels is 0"
        if self.clicks == self.items:
            return f"every one of the {self.items} labels is 1"
        return None


def _several_ranks() -> bool:
    return distributed.is_initialized() and distributed.get_world_size() > 1


def _sum_over_ranks(state: Tensor, group: Any = None) -> list[Tensor]:
    """The sum over ranks, in the form of torchmetrics' gather, which would hold the histograms of all ranks on each."""
    total = state.clone()
    distributed.all_reduce(total, group=group)
    return [total]
