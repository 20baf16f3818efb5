"""A callback that makes a run wait at a step, so that a test can disturb the run exactly there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L

from lightning_ccn.data.batch import PageBatch

LIMIT = 900.0  # seconds; the job of a failed test must end


class PauseAtSteps(L.Callback):
    """Waits as long as a test's file exists: `FOLDER/STEP` before that step, `FOLDER/save` in the middle of a save.

    Each waiting rank creates `FOLDER/STEP.RANK`. `FOLDER/poison` contains the number of a step at which every rank
    fails.

    Args:
        folder: Folder of these files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: PageBatch, batch_idx: int
    ) -> None:
        """Waits, or fails."""
        self._wait(str(trainer.global_step), trainer.global_rank)
        poison = self.folder / "poison"
        if poison.exists() and poison.read_text() == str(trainer.global_step):
            raise RuntimeError("a poisoned batch")

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Waits."""
        self._wait("save", trainer.global_rank)

    def _wait(self, name: str, rank: int) -> None:
        if (self.folder / name).exists():
            (self.folder / f"{name}.{rank}").touch()
            deadline = time.monotonic() + LIMIT
            while (self.folder / name).exists() and time.monotonic() < deadline:
                time.sleep(0.02)
