"""Runs of `ccn` on one device, in a process of their own, and what they leave."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from lightning_ccn import signals
from lightning_ccn.cli import main
from lightning_ccn.sharding import read_manifest
from lightning_ccn.sharding.checkpoint import load_tensors
from tests.sharding import ranks
from tests.sharding.ranks import on_ranks

FIT = ["--data.batch_pages", "32", "--data.workers", "0", "--model.final_lr", "1.0", "--test_after_fit", "false"]
FIT += ["--trainer.log_every_n_steps", "1", "--trainer.limit_val_batches", "0", "--wandb", "off"]
COMPILES = 300.0  # seconds for a run whose first step may compile kernels
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]


def run(words: list[str]) -> int:
    """`ccn WORDS` on a rank of `on_ranks`."""
    signals.reset()
    return main(words)


@dataclass(frozen=True)
class Run:
    """A run's folder."""

    folder: Path

    def checkpoint(self, step: int | None = None) -> Path:
        """The last checkpoint, or the one that was saved after a step."""
        return self.folder / "checkpoints" / (f"epoch=0-step={step}.ckpt" if step else "last.ckpt")

    @property
    def metrics(self) -> dict[str, Any]:
        """The final metrics."""
        found: dict[str, Any] = json.loads((self.folder / "metrics.json").read_text())
        return found

    @property
    def losses(self) -> dict[int, float]:
        """The training loss of each step."""
        with (self.folder / "metrics.csv").open() as file:
            return {int(row["step"]): float(row["train_loss"]) for row in csv.DictReader(file) if row.get("train_loss")}

    def tensors(self, step: int | None = None) -> dict[str, Tensor]:
        """Every tensor of a checkpoint, on the host."""
        path = self.checkpoint(step)
        about = read_manifest(path)["tensors"]
        found = {name: torch.empty(a["shape"], dtype=getattr(torch, a["dtype"])) for name, a in about.items()}
        load_tensors(path, found, None)
        return found


def words_of_fit(home: Path, name: str, world: Path, accelerator: str, *options: str) -> list[str]:
    """The words of a `ccn fit` on one device of each node."""
    place = ["--runs", str(home), "--experiment", "gpu", "--run_id", name, "--data.folder", str(world)]
    return ["fit", *place, "--trainer.accelerator", accelerator, "--trainer.devices", "1", *FIT, *QUIET, *options]


def fit(home: Path, name: str, world: Path, accelerator: str, *options: str) -> Run:
    """A fit on one rank that must succeed."""
    words = words_of_fit(home, name, world, accelerator, *options)
    with patch.object(ranks, "LIMIT", COMPILES):
        assert on_ranks(1, run, words=words) == [0], words
    return Run(home / "gpu" / name)


def saving_every(steps: int) -> list[str]:
    """Options that keep a checkpoint of every so many steps."""
    return [
        "--checkpoint.monitor",
        "null",
        "--checkpoint.every_n_train_steps",
        str(steps),
        "--checkpoint.save_top_k",
        "-1",
    ]
