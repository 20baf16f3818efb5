"""Checkpoints of short runs, packages of them, and what both say about the same pages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from lightning_ccn.cli import main
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.export.measure import MeasuredPages
from lightning_ccn.serving import Scorer
from lightning_ccn.serving.scorer import Engine
from tests.processes import clean_environment

# The inputs that a graph may have: none is of the clicks, or of the other items of a page.
GIVEN = {
    *("user", "item", "target", "trigger", "short", "short_lengths", "long", "long_lengths"),
    *("target_group", "trigger_group", "numbers", "vectors", "wide"),
}
GAPS = {"short_gap", "long_gap"}  # further ones of a system that reads how long ago behaviours were
# What the losses of nn/contrastive.py are made of, and no forward is.
OF_LOSSES = {"Log", "Acos", "LogSoftmax", "ScatterND", "ScatterElements", "CumSum", "NonZero", "Loop", "If"}


def train(folder: Path, runs: Path, system: str, *options: str) -> Path:
    """Trains a system of conf/model for an epoch of a fixture dataset, with large steps.

    Args:
        folder: The dataset.
        runs: Folder of runs.
        system: Its name in conf/model, and the name of the run.
        options: Further ones of `ccn fit`.

    Returns:
        The folder of the run.
    """
    words = ["fit", "--config", "conf/experiment/default.yaml", "--config", f"conf/model/{system}.yaml"]
    words += ["--data.folder", str(folder), "--runs", str(runs), "--run_id", system, "--model.lr", "0.1"]
    words += ["--data.batch_pages", "16", "--data.workers", "0", "--trainer.enable_progress_bar", "false"]
    words += ["--trainer.max_epochs", "1", "--trainer.limit_val_batches", "0", "--wandb", "off", *options]
    if "--trainer.devices" in options:  # further ranks are started as this process was, which is pytest
        command = [sys.executable, "-m", "lightning_ccn.cli", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=clean_environment())
    else:
        assert main(words) == 0
    return runs / "default" / system


def export_run(run: Path, package: Path, *options: str) -> Path:
    """Exports the newest checkpoint of a run, without compiling its graph."""
    words = ["export", "--ckpt_path", str(run), "--output", str(package), "--compiled", "false", *options]
    assert main(words) == 0
    return package


def predicted(run: Path, folder: Path, out: Path) -> np.ndarray:
    """The probabilities that `ccn predict` writes of the test split, in the order of the pages' ids."""
    words = ["predict", "--ckpt_path", str(run), "--data.folder", str(folder), "--output", str(out)]
    assert main([*words, "--trainer.enable_progress_bar", "false"]) == 0
    scores = pq.read_table(out)
    order = np.argsort(scores.column("page_id").to_numpy(), kind="stable")  # the items of a page stay in order
    return scores.column("probability").to_numpy()[order]


def served(package: Path, folder: Path, engine: Engine = "onnx") -> np.ndarray:
    """The probabilities of a package for the same items."""
    scorer = Scorer(package, engine=engine)
    scores = MeasuredPages(Dataset.open(folder), "test", 10_000, scorer.manifest).by_scorer(scorer)
    assert (np.diff(scores.page_id) > 0).all()
    return scores.probability
