"""A callback of the tests: which pages each step trained on, and an end like a crash's."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import lightning as L

from lightning_ccn.data.batch import PageBatch


class Recorder(L.Callback):
    """Appends (global step, rank, page ids) of every step to a file.

    Args:
        path: of the file, one JSON line a step and rank.
        crash_at: raise once so many steps are done; a run that is killed leaves no more behind.
        kill_rank: in place of raising, this rank alone is killed.
    """

    def __init__(self, path: Path, crash_at: int | None = None, kill_rank: int | None = None) -> None:
        self.path, self.crash_at, self.kill_rank = path, crash_at, kill_rank

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: PageBatch, batch_idx: int
    ) -> None:
        """Records, or ends."""
        if trainer.global_step == self.crash_at and self.kill_rank is not None:
            if trainer.global_rank == self.kill_rank:
                os.kill(os.getpid(), signal.SIGKILL)
        elif trainer.global_step == self.crash_at:
            raise RuntimeError("crash, as asked for")
        line: dict[str, Any] = {"step": trainer.global_step, "rank": trainer.global_rank}
        with self.path.open("a") as file:
            file.write(json.dumps({**line, "pages": batch.page_id.tolist()}) + "\n")


def trained(path: Path, steps: range) -> list[int]:
    """Page ids that these steps trained on, over all ranks; a step that was run again counts as it ran last."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    last = {(line["step"], line["rank"]): line["pages"] for line in lines}
    return [page for (step, _), pages in last.items() if step in steps for page in pages if page >= 0]
