"""A callback that makes a prediction wait at a batch, in parts that are small, so that a test can disturb it there."""

from __future__ import annotations

import json
from pathlib import Path

import lightning as L

from lightning_ccn.callbacks import prediction_parts, prediction_writer
from lightning_ccn.data.batch import PageBatch
from tests.cluster.pause_at_steps import PauseAtSteps


class PauseAtBatches(PauseAtSteps):
    """Waits before a batch as long as a test's file `FOLDER/BATCH` exists, see `PauseAtSteps`.

    `FOLDER/scored.RANK` has a line for each batch that was begun: its number in this start, and its pages.

    Args:
        folder: Folder of these files.
        batches: How many batches have their scores in one part.
    """

    def __init__(self, folder: Path, batches: int) -> None:
        super().__init__(folder)
        prediction_parts.BATCHES = prediction_writer.BATCHES = batches  # type: ignore[attr-defined]

    def on_predict_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: PageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Notes the batch, and waits."""
        with (self.folder / f"scored.{trainer.global_rank}").open("a") as file:
            file.write(json.dumps({"batch": batch_idx, "pages": batch.page_id.tolist()}) + "\n")
        self._wait(str(batch_idx), trainer.global_rank)
