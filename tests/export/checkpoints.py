"""Checkpoints of short runs, and packages of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lightning_ccn.cli import main
from tests.processes import clean_environment


def train(folder: Path, runs: Path, system: str, *options: str) -> Path:
    """Trains a system of conf/model for an epoch of a fixture dataset, with large steps.

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
