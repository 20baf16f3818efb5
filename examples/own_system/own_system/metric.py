"""`BrierScore`: a metric. Registered in `METRICS`, it is reported and compared like the built-in ones."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_ccn.evaluation.click_metric import ClickMetric


class BrierScore(ClickMetric):
    """Mean squared difference of click probability and click."""

    title = "Brier score"
    higher_is_better = False  # for --checkpoint.monitor val_brier
    squares: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("squares", torch.float64)

    def update(self, logits: Tensor, clicks: Tensor) -> None:
        """Adds a batch: logits float [items], clicks [items] of 0 and 1."""
        super().update(logits, clicks)
        self.squares += (logits.double().sigmoid() - clicks.double()).square().sum()

    def value(self) -> Tensor:
        """The mean over all items of all ranks."""
        return self.squares / self.items
