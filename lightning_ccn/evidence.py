"""What the scores of a split show beyond its metrics: pictures for W&B, and `evidence.json` in the run's folder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.datamodule import PageData
from lightning_ccn.models.system import Prediction
from lightning_ccn.module import CTRModule
from lightning_ccn.pictures import (
    PAGE_SIZES,
    ScoreSums,
    calibration_groups,
    calibration_plot,
    degree_histogram,
    page_auc_plot,
)
from lightning_ccn.sharding import TorchRecStrategy
from lightning_ccn.tracking import ID_FILE, Tracker

BEFORE_BATCHES = 20  # of the validation split, which the untrained model scores


class Scores(L.Callback):
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


class Pictures(L.Callback):
    """Logs to Weights & Biases what no column of numbers shows, and leaves its run's id in the checkpoints.

    At the start, the sharding plan. For each validation and test: histograms of the collaborative degree of clicked
    and of unclicked items, a calibration plot, and the page-grouped AUC by page size.

    Args:
        tracker: one of the trainer's loggers.
        scores: a callback before this one, which listens to validations too.
    """

    def __init__(self, tracker: Tracker, scores: Scores) -> None:
        self.tracker, self.scores = tracker, scores

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the id, for a run that is fine-tuned from the checkpoint; see `tracking.parent_of`."""
        if trainer.is_global_zero:
            checkpoint[ID_FILE] = self.tracker.run_id

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the plan."""
        strategy = trainer.strategy
        assert isinstance(strategy, TorchRecStrategy) and strategy.plan is not None
        self.tracker.log_hyperparams({"plan": strategy.plan.as_dict(), "nodes": trainer.num_nodes})

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the pictures of the validation split."""
        if not trainer.sanity_checking:
            self._show("validation", trainer.global_step - (trainer.state.fn == TrainerFn.FITTING))

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the pictures of the test split."""
        self._show("test", trainer.global_step)

    @rank_zero_only
    def _show(self, split: str, step: int) -> None:
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
        self.tracker.log_pictures(images, histograms, step)


class Evidence(L.Callback):
    """Writes `evidence.json`: numbers behind the pictures, lists of equal lengths.

    - `calibration`: `items`, `predicted` (their mean prediction) and `clicked` (their click rate) of about 20 groups
      of the test split, lowest prediction first.
    - `page_auc_by_size`: `low` and `high` exposed items a page, `pages` of the test split, `page_gauc` (null where
      undefined).
    - `degrees`, null for a system without one: items by collaborative degree, `unclicked` and `clicked`, between
      `edges` (one more than bins). `before` is of the untrained model on the first batches of the validation split
      (null where training was not begun in this folder), `after` of the test split.

    The untrained model (of a fine-tune: the checkpoint's) scores when training starts from step 0. No loader is
    iterated, and no random number is drawn.

    Args:
        folder: of the run.
        scores: a callback before this one.
    """

    def __init__(self, folder: Path, scores: Scores) -> None:
        self.path, self.scores = folder / "evidence.json", scores

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Scores with the untrained model, on every rank."""
        if trainer.global_step > 0:
            return
        before = None
        if trainer.enable_validation:
            sums = _untrained(trainer, pl_module)
            before = degree_counts(trainer.strategy.reduce(sums.degrees, reduce_op="sum").cpu().numpy())
        self._start(before)

    @rank_zero_only
    def _start(self, before: dict[str, list[float]] | None) -> None:
        # kept in the file: a run that is killed goes on in another process
        self.path.unlink(missing_ok=True)  # of an earlier run of this name
        if before is not None:
            self._write({"degrees": {"before": before, "after": None}})

    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes what the test split shows."""
        calibration, degrees, pages, auc = self.scores.totals
        items, predicted, clicked = calibration_groups(calibration)
        low, high = zip(*PAGE_SIZES, strict=True)
        found: dict[str, Any] = {
            "calibration": {"items": items.tolist(), "predicted": predicted.tolist(), "clicked": clicked.tolist()},
            "page_auc_by_size": {
                "low": low,
                "high": high,
                "pages": pages.tolist(),
                "page_gauc": [value if math.isfinite(value) else None for value in auc.tolist()],
            },
            "degrees": None,
        }
        after = degree_counts(degrees)
        if after is not None:
            started = json.loads(self.path.read_text()) if self.path.exists() else {}
            found["degrees"] = {"before": (started.get("degrees") or {}).get("before"), "after": after}
        self._write(found)

    def _write(self, values: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(values) + "\n")


def degree_counts(degrees: np.ndarray) -> dict[str, list[float]] | None:
    """`ScoreSums.degrees` as plain numbers, without the empty bins at both ends; None where all are empty."""
    histogram = degree_histogram(degrees.sum(0))
    if histogram is None:
        return None
    edges, seen = histogram[1], np.flatnonzero(degrees.sum(0))
    unclicked, clicked = degrees[:, seen[0] : seen[-1] + 1].tolist()
    return {"edges": edges.tolist(), "unclicked": unclicked, "clicked": clicked}


def _untrained(trainer: L.Trainer, module: L.LightningModule) -> ScoreSums:
    """Sums over this rank's share of the first validation batches; of none, where the system has no degree."""
    data = trainer.datamodule  # type: ignore[attr-defined]  # the Trainer sets it from afar
    assert isinstance(data, PageData)
    batches = data.val_dataloader().batches  # a batch is a function of its number: no loader moves
    sums = ScoreSums(trainer.strategy.root_device)
    with _evaluating(module), torch.no_grad():
        for step in range(min(BEFORE_BATCHES, len(batches))):
            batch = batches[0, step].to(trainer.strategy.root_device)
            prediction: Prediction = module(batch)
            if prediction.degree is None:
                break
            sums.update(prediction, batch)
    return sums


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Every part of the module in evaluation, and afterwards as it was."""
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, was in training.items():
            part.training = was
