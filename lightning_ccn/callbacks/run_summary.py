"""`metrics.json`: the final metrics of a run, also printed as a table."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from rich.console import Console
from rich.table import Table

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.evaluation.world_bounds import world_bounds
from lightning_ccn.evaluation.yardstick import CLICK_RATE, read_yardstick
from lightning_ccn.module import CTRModule

CONTENT = ("metrics.json", "config.yaml", "test.yaml", "plan.json", "diagnostics.json", "checkpoints")  # if there
OF_FIT = ("val_", "train_items_per_second", "train_seconds", "global_step", "world_size")  # beginnings of its metrics


class RunSummary(L.Callback):
    """Writes `metrics.json` at the end of fit and of test, and prints it after the test.

    The file is one flat object. `fit` writes `train_items_per_second` and `train_seconds` (both without validations),
    `global_step`, `world_size` and the last validation metrics. `test` adds the test metrics, and for a synthetic world
    `oracle_auc` and `attainable_auc`. An undefined metric is null. The table also shows the dataset's yardstick, which
    is reached without a model, if the dataset has one and the whole test split was scored.

    Args:
        folder: Folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.items = 0.0
        self.seconds = 0.0
        self._tested = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self._since = time.perf_counter()
        self.items = self.seconds = 0.0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: PageBatch, batch_idx: int
    ) -> None:
        """Counts this rank's items."""
        self.items += batch.items

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stops the clock while validation runs."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.seconds += time.perf_counter() - self._since

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock again."""
        self._since = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the speed of training and the last validation metrics."""
        self.seconds += time.perf_counter() - self._since
        items = trainer.strategy.reduce(torch.tensor(self.items, device=trainer.strategy.root_device), reduce_op="sum")
        fitted: dict[str, Any] = {
            "train_items_per_second": float(items) / max(self.seconds, 1e-9),
            "train_seconds": self.seconds,
            "global_step": trainer.global_step,
            "world_size": trainer.world_size,
        }
        assert isinstance(pl_module, CTRModule)
        self._write("fit", {**fitted, **{k: v for k, v in pl_module.results.items() if k.startswith("val_")}})

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the test metrics."""
        assert isinstance(pl_module, CTRModule)
        tested = {k: v for k, v in pl_module.results.items() if not k.startswith("val_")}
        share = trainer.global_rank, trainer.world_size, trainer.strategy.root_device
        self._write("test", {**tested, **world_bounds(pl_module.dataset, *share)})
        self._tested = True

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Prints the file after a test, below the progress bar."""
        if not self._tested:
            return
        self._tested = False
        if trainer.progress_bar_callback is not None:
            trainer.progress_bar_callback.teardown(trainer, pl_module, stage)  # its last state, not below the table
        assert isinstance(pl_module, CTRModule)
        self._print(pl_module.dataset)

    @rank_zero_only
    def _write(self, part: Literal["fit", "test"], values: dict[str, Any]) -> None:
        """Replaces the metrics of one part; those of an earlier test may have been other ones."""
        path = self.folder / "metrics.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        if part == "test":
            before = {name: value for name, value in before.items() if name.startswith(OF_FIT)}
        self.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**before, **{k: _plain(v) for k, v in values.items()}}, indent=2) + "\n")

    @rank_zero_only
    def _print(self, dataset: Dataset) -> None:
        found = json.loads((self.folder / "metrics.json").read_text())
        yardstick = read_yardstick(dataset)
        if found.get("items") != dataset.splits["test"].items:  # the yardstick is of the whole split
            yardstick = {}
        table = Table("metric", "value", *(["without a model"] if yardstick else []))
        for name, value in found.items():
            without = [f"{yardstick[name]:.6g}" if name in yardstick else ""] if yardstick else []
            table.add_row(name, "undefined" if value is None else f"{value:.6g}", *without)
        Console().print(table)
        if yardstick:
            rank_zero_info(f"Without a model: by {CLICK_RATE}.")
        content = ", ".join(name for name in CONTENT if (self.folder / name).exists())
        what = "run" if "config.yaml" in content else "test"
        rank_zero_info(f"Everything of this {what} is in {self.folder} ({content}).")


def _plain(value: float) -> float | int | None:
    return value if math.isfinite(value) else None
