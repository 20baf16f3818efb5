"""`diagnostics.json`: calibration, page AUC by page size, and the collaborative degrees."""

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
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from lightning_ccn.callbacks.score_collector import ScoreCollector
from lightning_ccn.data.datamodule import PageData
from lightning_ccn.evaluation.score_sums import PAGE_SIZES, ScoreSums, calibration_groups, degree_histogram
from lightning_ccn.lightning_private import datamodule_of
from lightning_ccn.models.system import Prediction

UNTRAINED_BATCHES = 20  # batches of the validation split that the untrained model scores


class DiagnosticsFile(L.Callback):
    """Writes `diagnostics.json`, the numbers behind the plots. Within each entry the lists have equal lengths.

    - `calibration`: The test split's items in about 20 groups, from the lowest prediction to the highest: the number of
      `items`, their mean prediction `predicted`, and their click rate `clicked`.
    - `page_auc_by_size`: The test split's pages, grouped by their number of exposed items, from `low` to `high`: the
      number of `pages` and their mean AUC, `page_gauc` (null if no page of the group has one).
    - `degrees`: Histograms of the collaborative degree of `unclicked` and `clicked` items; `edges` has one number more
      than there are bins. `after` is of the trained model on the test split. `before` is of the untrained model on the
      first 20 batches of the validation split; null if training did not start in this folder. The whole entry is null
      for a system without a collaborative degree.

    The untrained model (when fine-tuning: the loaded one) is scored when training starts from step 0. This neither
    iterates a loader nor draws a random number.

    Args:
        folder: Folder of the run.
        scores: Collects the scores; comes before this callback.
    """

    def __init__(self, folder: Path, scores: ScoreCollector) -> None:
        self.path, self.scores = folder / "diagnostics.json", scores

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Scores batches with the untrained model, on every rank."""
        if trainer.global_step > 0:
            return
        before = None
        if trainer.enable_validation:
            sums = _untrained(trainer, pl_module)
            before = degree_counts(trainer.strategy.reduce(sums.degrees, reduce_op="sum").cpu().numpy())
        self._start(before)

    @rank_zero_only
    def _start(self, before: dict[str, list[float]] | None) -> None:
        # kept in the file: a killed run is continued by another process
        self.path.unlink(missing_ok=True)  # a run that was killed before its first save begins anew
        if before is not None:
            self._write({"degrees": {"before": before, "after": None}})

    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the file."""
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
    """`ScoreSums.degrees` as plain numbers, without the empty bins at both ends; None if all are empty.

    Args:
        degrees: Items by clicked (0 or 1) and bin, int64 [2, bins].
    """
    histogram = degree_histogram(degrees.sum(0))
    if histogram is None:
        return None
    edges, seen = histogram[1], np.flatnonzero(degrees.sum(0))
    unclicked, clicked = degrees[:, seen[0] : seen[-1] + 1].tolist()
    return {"edges": edges.tolist(), "unclicked": unclicked, "clicked": clicked}


def _untrained(trainer: L.Trainer, module: L.LightningModule) -> ScoreSums:
    """Sums over this rank's share of the first validation batches; empty if the system has no degree."""
    data = datamodule_of(trainer)
    assert isinstance(data, PageData)
    batches = data.val_dataloader().batches  # a batch is a function of its number: no loader moves
    sums = ScoreSums(trainer.strategy.root_device)
    with _evaluating(module), torch.no_grad():
        for step in range(min(UNTRAINED_BATCHES, len(batches))):
            batch = batches[0, step].to(trainer.strategy.root_device)
            prediction: Prediction = module(batch)
            if prediction.degree is None:
                break
            sums.update(prediction, batch)
    return sums


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Sets all parts of the module to evaluation mode, and each back to its own mode afterwards."""
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, was in training.items():
            part.training = was
