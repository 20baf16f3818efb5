"""For tests of stopping: runs on the ranks of `on_ranks`, one of which is asked to stop at a chosen moment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning as L

from lightning_ccn import signals
from lightning_ccn.cli import main

# 96 pages in global batches of 8: 12 steps an epoch, 2 epochs, a validation of 3 batches every 6 steps
OPTIONS = ["--data.batch_pages", "8", "--data.workers", "0", "--model.system.dim", "8", "--trainer.max_epochs", "2"]
OPTIONS += ["--trainer.val_check_interval", "6", "--trainer.log_every_n_steps", "4", "--trainer.accelerator", "cpu"]
OPTIONS += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false", "--wandb", "off"]
CRASHED = 1


class Ask(L.Callback):
    """Sets the flag that a signal would set.

    Args:
        hook: whose call is the moment, e.g. `on_train_batch_end`.
        call: which of its calls, from 1.
        rank: that is asked.
    """

    def __init__(self, hook: str, call: int, rank: int) -> None:
        self.rank, self.left = rank, call
        setattr(self, hook, self._count)

    def _count(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        self.left -= 1
        if self.left == 0 and trainer.global_rank == self.rank:
            signals._asked.set()


def fit(folder: Path, runs: Path, run_id: str, options: tuple[str, ...] = ()) -> int:
    """The exit code of `ccn fit` on this rank, or CRASHED; the run goes on where it is."""
    signals._asked.clear()
    place = ["--runs", str(runs), "--experiment", "test", "--run_id", run_id, "--data.folder", str(folder)]
    record = ["--trainer.callbacks=tests.training.recorder.Recorder", f"--trainer.callbacks.path={runs / run_id}.jsonl"]
    world = ["--trainer.devices", os.environ["CCN_TEST_WORLD_SIZE"], "--ckpt_path", "last"]
    try:
        return main(["fit", *place, *OPTIONS, *world, *record, *options])
    except RuntimeError as error:
        if str(error) != "crash, as asked for":  # by the Recorder
            raise
        return CRASHED
