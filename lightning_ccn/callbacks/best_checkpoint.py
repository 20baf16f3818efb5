"""The checkpoints of the best validations."""

from __future__ import annotations

from functools import cached_property

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor


class BestCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, but a metric that is undefined never makes a checkpoint one of the best.

    A validation without clicks has no AUC. Lightning counts it as the worst value, and so as the best one as long as
    there are fewer than `save_top_k`.
    """

    def check_monitor_top_k(self, trainer: L.Trainer, current: Tensor | None = None) -> bool:
        """Whether the value belongs to the best so far: the same on every rank, as the metrics are sums over ranks."""
        if current is not None and bool(current.isnan()) and self.save_top_k != -1:  # -1 keeps every checkpoint
            return False
        return super().check_monitor_top_k(trainer, current)

    @cached_property  # Lightning asks for it at each of a step's hooks
    def state_key(self) -> str:
        """The key of ModelCheckpoint's state in a checkpoint, so that older checkpoints are continued."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)
