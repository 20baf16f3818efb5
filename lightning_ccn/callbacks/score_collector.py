"""The scores of a split, summed up for the callbacks that report them."""

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
    """Sums up the model's scores during a test, and on request a validation, for the callbacks after it.

    Args:
        validations: Sum up validations too, which takes time.

    Attributes:
        totals: Sums over all ranks for the split that was scored last: calibration, degrees, pages and page AUC by
            page size, see `ScoreSums.reduce`.
    """

    totals: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

    def __init__(self, validations: bool) -> None:
        self.validations = validations

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the sums, and hooks into the model's forward pass."""
        assert isinstance(pl_module, CTRModule) and pl_module.model is not None
        self._sums = ScoreSums(trainer.strategy.root_device)
        self._hook = pl_module.model.register_forward_hook(self._keep)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: PageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Adds the batch that the model has just scored."""
        self._sums.update(self._prediction, batch)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Sums over ranks; a collective operation."""
        self._hook.remove()
        self.totals = self._sums.reduce(lambda value: trainer.strategy.reduce(value, reduce_op="sum"))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Does the same as `on_test_start`, if validations are wanted."""
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
        """Does the same as `on_test_batch_end`, if validations are wanted."""
        if self.validations:
            self._sums.update(self._prediction, batch)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Does the same as `on_test_end`, if validations are wanted."""
        if self.validations:
            self.on_test_end(trainer, pl_module)

    def _keep(self, model: nn.Module, inputs: Any, prediction: Prediction) -> None:
        self._prediction = prediction
