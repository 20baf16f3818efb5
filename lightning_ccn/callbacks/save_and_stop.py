"""Saving a run now and then, and stopping it where it can go on, when somebody asks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.loops.progress import _ProcessedTracker
from lightning.pytorch.utilities import rank_zero_info

from lightning_ccn.errors import Interrupted
from lightning_ccn.signals import asked_to_stop

NOTHING, SAVE, STOP = 0, 1, 2  # what a rank wishes; the largest wish of all ranks counts


class SaveAndStop(L.Callback):
    """Keeps `last.ckpt`, the state to go on from, and stops the run there when a signal has asked for it.

    At the end of each step the ranks agree: all of them save the same step, and leave. The agreement is an all-reduce
    of one number in the background of the next step, so a boundary decides what was wished at the one before it.

    Args:
        folder: of the checkpoints.
        save_every: seconds of training between two saves. A run that is killed has lost no more than that.

    Raises:
        Interrupted: on every rank, from the hook where the run stops.
    """

    def __init__(self, folder: Path, save_every: float) -> None:
        self.path = folder / "last.ckpt"
        self.save_every = save_every
        self._saved_at = 0.0
        self._group: dist.ProcessGroup | None = None
        self._wish = torch.zeros(1, dtype=torch.int64)
        self._agreeing: dist.Work | None = None
        self._decision = NOTHING
        self._repeat_validation = False

    # ---------------------------------------------------------------------------------------------- boundaries

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Stops before tables are made, if asked by now."""
        if not dist.is_initialized():  # a strategy that the module will refuse
            return
        if self._group is None:
            self._group = dist.new_group(backend="gloo")
        self._stop_if_asked()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stops before the first step, if asked while tables were made and a checkpoint was read."""
        self._saved_at = time.monotonic()
        self._stop_if_asked()
        _say(f"training from step {trainer.global_step} on")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves or stops, unless something of this step is still to come: then at the end of the next."""
        decision = self._agree()
        if decision == NOTHING or _more_to_come(trainer):
            return
        self._save(trainer)
        if decision == STOP:
            raise Interrupted(f"after step {trainer.global_step}")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Mends Lightning's count of batches, in which a validation that was run again is one ahead."""
        total = trainer.fit_loop.epoch_loop.val_loop.batch_progress.total
        assert isinstance(total, _ProcessedTracker)
        total.ready = total.started = total.processed = total.completed

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Stops in the middle of a validation; of a fit, it will be run again as a whole."""
        if self._agree() == STOP:
            if trainer.state.fn == "fit":
                self._repeat_validation = True
                self._save(trainer)
            raise Interrupted(f"in the validation after step {trainer.global_step}")

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Stops; the checkpoint of the end of training is there."""
        if self._agree() == STOP:
            raise Interrupted("in the test")

    def on_predict_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Stops; the next run begins again."""
        if self._agree() == STOP:
            raise Interrupted("in the prediction")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the end of training."""
        self._save(trainer)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Ends the agreement that is under way."""
        if self._agreeing is not None:
            self._agreeing.wait()
            self._agreeing = None

    # ---------------------------------------------------------------------------------------------- means

    def _agree(self) -> int:
        """Tells the other ranks what this one wishes; the largest wish of any rank at the boundary before.

        STOP stays. The ranks leave with nothing under way between them.
        """
        if self._agreeing is not None:
            self._agreeing.wait()
            self._agreeing = None
            self._decision = int(self._wish)
        if self._decision != STOP:
            due = dist.get_rank() == 0 and time.monotonic() - self._saved_at >= self.save_every
            self._wish.fill_(STOP if asked_to_stop() else SAVE if due else NOTHING)
            self._agreeing = dist.all_reduce(self._wish, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return self._decision

    def _stop_if_asked(self) -> None:
        self._agree()
        if self._agree() == STOP:
            raise Interrupted("before training")

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._saved_at = time.monotonic()
        _say(f"saved after step {trainer.global_step}")

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Dates a checkpoint from the middle of a validation back to the start of the validation's first batch.

        Left alone, Lightning would go on with the batches that are left; metrics of the others are in no checkpoint.
        """
        if not self._repeat_validation:
            return
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
        done_before = progress["total"]["completed"] - progress["current"]["completed"]
        for name, done in (("total", done_before), ("current", 0)):
            progress[name] = {"ready": done + 1, "started": done + 1, "processed": done, "completed": done}


def _say(words: str) -> None:
    """Dated, for a log of a run that stops and goes on."""
    rank_zero_info(f"{time.strftime('%F %T')} {words}")


def _more_to_come(trainer: L.Trainer) -> bool:
    """Whether a validation or a line of the log follows this step's last hook: a run that stops here loses it."""
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    if every > 1 and trainer.global_step % every == 0:
        return True
    loop = trainer.fit_loop
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # type: ignore[arg-type]
