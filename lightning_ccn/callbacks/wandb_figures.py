"""Plots and histograms for Weights & Biases."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only

from lightning_ccn.callbacks.score_collector import ScoreCollector
from lightning_ccn.evaluation.plots import calibration_plot, page_auc_plot
from lightning_ccn.evaluation.score_sums import degree_histogram
from lightning_ccn.loggers.wandb_tracker import ID_FILE, WandbTracker
from lightning_ccn.sharding import TorchRecStrategy


class WandbFigures(L.Callback):
    """Logs the sharding plan and figures to Weights & Biases, and saves the W&B run's id in the checkpoints.

    The figures of each validation and test are histograms of the collaborative degree of clicked and of unclicked
    items, a calibration plot, and the page AUC by page size.

    Args:
        tracker: The trainer's W&B logger.
        scores: Collects the scores, of validations too; comes before this callback.
    """

    def __init__(self, tracker: WandbTracker, scores: ScoreCollector) -> None:
        self.tracker, self.scores = tracker, scores

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the id, which a run that is fine-tuned from the checkpoint reads with `parent_of`."""
        if trainer.is_global_zero:
            checkpoint[ID_FILE] = self.tracker.run_id

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the plan."""
        strategy = trainer.strategy
        assert isinstance(strategy, TorchRecStrategy) and strategy.plan is not None
        self.tracker.log_hyperparams({"plan": strategy.plan.as_dict(), "nodes": trainer.num_nodes})

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the figures of the validation split."""
        if not trainer.sanity_checking:
            self._log_figures("validation", trainer.global_step - (trainer.state.fn == TrainerFn.FITTING))

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the figures of the test split."""
        self._log_figures("test", trainer.global_step)

    @rank_zero_only
    def _log_figures(self, split: str, step: int) -> None:
        calibration, degrees, pages, auc = self.scores.totals
        images = {
            f"{split}/calibration": calibration_plot(calibration),
            f"{split}/page_auc_by_size": page_auc_plot(auc, pages),
        }
        histograms = {}
        for name, counts in zip(("degree_unclicked", "degree_clicked"), degrees, strict=True):
            histogram = degree_histogram(counts)
            if histogram is not None:
                histograms[f"{split}/{name}"] = histogram
        self.tracker.log_figures(images, histograms, step)
