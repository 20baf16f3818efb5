"""Collects a split's scores for the callbacks that report them."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
from torch import nn

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.evaluation.score_sums import ScoreSums
from lightning_ccn.models.system import Prediction
from lightning_ccn.module import CTRModule


class ScoreCollector(L.Callback):
    """Listens to the model through a test, or a validation, and adds its scores up for the callbacks after it.

    Args:
        validations: listen to those too; it takes time.

    Attributes:
        totals: of the split that was scored last, over all ranks; see `ScoreSums.reduce`.
    """

    totals: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

    def __init__(self, validations: bool) -> None:
        self.validations = validations

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the sums, and listens to the model."""
        assert isinstance(pl_module, CTRModule) and pl_module.model is not None
        self._sums = ScoreSums(trainer.strategy.root_device)
        self._hook = pl_module.model.register_forward_hook(self._listen)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: PageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Adds a batch."""
        self._sums.update(self._prediction, batch)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Adds the ranks up; every rank calls it."""
        self._hook.remove()
        self.totals = self._sums.reduce(lambda value: trainer.strategy.reduce(value, reduce_op="sum"))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """As of a test."""
        if self.validations:
            self.on_test_start(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: PageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """As of a test."""
        if self.validations:
            self._sums.update(self._prediction, batch)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """As of a test."""
        if self.validations:
            self.on_test_end(trainer, pl_module)

    def _listen(self, model: nn.Module, inputs: Any, prediction: Prediction) -> None:
        self._prediction = prediction
