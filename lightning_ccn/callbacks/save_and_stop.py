"""Saves `last.ckpt` regularly, and stops the run after a save when a signal asks for it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_info

from lightning_ccn.errors import Interrupted
from lightning_ccn.lightning_private import (
    epoch_was_left,
    let_go_of_ranks,
    log_interval,
    reopen_epoch,
    repair_validation_count,
    restart_validation,
    sigterm_calls,
    validation_follows,
)
from lightning_ccn.sharding import TorchRecStrategy
from lightning_ccn.sharding.process_group import ends_together
from lightning_ccn.signals import asked_to_stop, interrupted, request_stop

# What a rank proposes; all ranks do the largest of their proposals. INTERRUPT is STOP because of Ctrl-C.
NOTHING, SAVE, STOP, INTERRUPT = 0, 1, 2, 3
AGREE_EVERY = 0.5  # seconds; a request to stop is obeyed within little more
AT_MOST = 100  # steps between two agreements, should they become slower


class SaveAndStop(L.Callback):
    """Keeps `last.ckpt`, the state to continue from, and stops the run after saving it when a signal asks for that.

    The ranks agree whether to save or stop, so that all do it after the same step. They agree by an all-reduce of two
    numbers, which runs in the background of the next step: a step's end carries out what was proposed at the end of the
    step before. The second number says after how many steps they agree again. It is what rank 0 measures to be about
    `AGREE_EVERY` seconds, and it travels with the decision because every rank has to use the same.

    Args:
        folder: Folder of the checkpoints.
        save_every: Seconds of training between two saves; a killed run loses no more than that.

    Raises:
        Interrupted: On every rank, from the hook where the run stops.
    """

    def __init__(self, folder: Path, save_every: float) -> None:
        self.path = folder / "last.ckpt"
        self.save_every = save_every
        self._saved_at = 0.0
        self._group: dist.ProcessGroup | None = None
        self._proposal = torch.zeros(2, dtype=torch.int64)  # what to do; steps until the ranks agree again
        self._agreeing: dist.Work | None = None
        self._decision = NOTHING
        self._left = 0  # steps until the ranks agree again
        self._proposed_at, self._steps = 0.0, 0  # when this rank last proposed something, and its steps since then
        self._repeat_validation = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Stops before tables are allocated, if already asked."""
        if not isinstance(trainer.strategy, TorchRecStrategy):  # which the module will refuse
            return
        sigterm_calls(trainer, request_stop)
        if self._group is None:
            group = dist.new_group(backend="gloo", timeout=trainer.strategy.timeout)
            assert isinstance(group, dist.ProcessGroup)  # every rank is a member
            self._group = group
        self._stop_if_asked(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stops before the first step, if asked while tables were allocated and a checkpoint was read."""
        self._stop_if_asked(trainer)
        _log(f"training from step {trainer.global_step} on")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves or stops; at the end of the next step if this step's validation or log line is still to come."""
        decision = self._agree()
        if decision == NOTHING or _more_to_come(trainer):
            return
        self._save(trainer)
        if decision >= STOP:
            _stop(trainer, f"after step {trainer.global_step}")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Corrects Lightning's count of batches after a validation was interrupted."""
        repair_validation_count(trainer)
        self._change_of_pace()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lets the ranks agree at the next training step."""
        self._change_of_pace()

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Stops in the middle of a validation, which a continued fit runs again from its start."""
        if self._agree() >= STOP:
            if trainer.state.fn == "fit":
                self._repeat_validation = True
                self._save(trainer)
            _stop(trainer, f"in the validation after step {trainer.global_step}")

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Stops; the end of training has been saved."""
        if self._agree() >= STOP:
            _stop(trainer, "in the test")

    def on_predict_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Stops; the parts that all ranks have finished stay, see `PredictionWriter`."""
        if self._agree() >= STOP:
            _stop(trainer, "in the prediction")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the end of training."""
        self._save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """After a second Ctrl-C, which no rank agrees on: ends the ranks that this one has started."""
        if isinstance(exception, KeyboardInterrupt):
            for process in let_go_of_ranks(trainer):
                process.kill()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Waits for the all-reduce in the background."""
        self._read()

    def _agree(self) -> int:
        """At the end of a step: what the ranks have agreed on, which the next all-reduce may already add to.

        Once agreed, STOP or INTERRUPT remains, and no further all-reduce starts: the ranks can leave. SAVE remains
        until it is done.
        """
        self._read()
        self._steps += 1
        self._left -= 1
        if self._decision < STOP and self._left <= 0:
            self._propose()
        return self._decision

    def _propose(self) -> None:
        """Starts an all-reduce of what this rank wants."""
        now = time.monotonic()
        since_save = 0.0 if self._decision == SAVE else now - self._saved_at  # one that is agreed on comes first
        due = dist.get_rank() == 0 and since_save >= self.save_every
        stop = INTERRUPT if interrupted() else STOP if asked_to_stop() else NOTHING
        pause = 1
        if dist.get_world_size() > 1 and self._steps:
            pause = int(AGREE_EVERY * self._steps / max(now - self._proposed_at, 1e-9))
        self._proposed_at, self._steps = now, 0
        self._proposal[0] = stop or (SAVE if due else NOTHING)
        self._proposal[1] = min(max(pause, 1), AT_MOST) if dist.get_rank() == 0 else 0
        if dist.get_world_size() == 1:
            self._take_over()
        else:
            self._agreeing = dist.all_reduce(self._proposal, dist.ReduceOp.MAX, group=self._group, async_op=True)

    def _read(self) -> None:
        """Waits for the all-reduce in the background, and takes over what it says."""
        if self._agreeing is None:
            return
        self._agreeing.wait()
        self._agreeing = None
        self._take_over()

    def _take_over(self) -> None:
        """Takes over what the ranks, or the only one, have agreed on."""
        agreed, self._left = self._proposal.tolist()
        self._decision = max(self._decision, agreed)
        if self._decision == INTERRUPT:
            request_stop(by_ctrl_c=True)  # it may have reached another rank only

    def _change_of_pace(self) -> None:
        """Steps may take longer from now on: lets the ranks agree at the next, and measure anew."""
        self._read()
        self._left = self._steps = 0

    def _stop_if_asked(self, trainer: L.Trainer) -> None:
        self._saved_at = time.monotonic()  # nothing is trained yet, so no save is due
        self._read()
        if self._decision < STOP:
            self._propose()
            self._read()
        self._left = self._steps = 0
        if self._decision >= STOP:
            _stop(trainer, "before training")

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._saved_at = time.monotonic()
        if self._decision == SAVE:
            self._decision = NOTHING
        _log(f"saved after step {trainer.global_step}")

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Makes a checkpoint from the middle of a validation repeat all of it, and one from an epoch go on in it."""
        if self._repeat_validation:
            restart_validation(checkpoint)
        if trainer.state.fn == "fit" and epoch_was_left(trainer):
            reopen_epoch(checkpoint)


def _stop(trainer: L.Trainer, where: str) -> NoReturn:
    """Stops this rank, as the others do."""
    let_go_of_ranks(trainer)
    ends_together()
    raise Interrupted(where)


def _log(message: str) -> None:
    """Prints a message with its time, since the log of a run can span several jobs."""
    rank_zero_info(f"{time.strftime('%F %T')} {message}")


def _more_to_come(trainer: L.Trainer) -> bool:
    """Whether a validation or a log line follows this step's last hook; a run that stopped here would lose it."""
    every = log_interval(trainer)
    return (every > 1 and trainer.global_step % every == 0) or validation_follows(trainer)
