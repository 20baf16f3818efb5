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
from lightning_ccn.models.system import Prediction

BEFORE_BATCHES = 20  # of the validation split, which the untrained model scores


class DiagnosticsFile(L.Callback):
    """Writes `diagnostics.json`: numbers behind the pictures, lists of equal lengths.

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

    def __init__(self, folder: Path, scores: ScoreCollector) -> None:
        self.path, self.scores = folder / "diagnostics.json", scores

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """ScoreCollector with the untrained model, on every rank."""
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
