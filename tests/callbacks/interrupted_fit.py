"""For tests of stopping: runs `ccn fit` on the ranks that `on_ranks` starts; `Ask` asks one of them to stop."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.distributed as dist

from lightning_ccn import signals
from lightning_ccn.callbacks import save_and_stop
from lightning_ccn.cli import main

# 96 pages in global batches of 8: 12 steps an epoch, 2 epochs, a validation of 3 batches every 6 steps
OPTIONS = ["--data.batch_pages", "8", "--data.workers", "0", "--model.system.dim", "8", "--trainer.max_epochs", "2"]
OPTIONS += ["--trainer.val_check_interval", "6", "--trainer.log_every_n_steps", "4", "--trainer.accelerator", "cpu"]
OPTIONS += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false", "--wandb", "off"]
CRASHED = 1


class Ask(L.Callback):
    """Asks a rank to stop, as a signal would, or Ctrl-C.

    Args:
        hook: Name of the hook in which to ask, e.g. `on_train_batch_end`.
        call: The number of the hook's call, from 1.
        rank: The rank to ask.
        by_ctrl_c: Whether it is Ctrl-C.
        by_sigterm: Whether it is a real SIGTERM, which nothing blocks outside jobs.
    """

    def __init__(self, hook: str, call: int, rank: int, by_ctrl_c: bool = False, by_sigterm: bool = False) -> None:
        self.rank, self.left, self.by_ctrl_c, self.by_sigterm = rank, call, by_ctrl_c, by_sigterm
        setattr(self, hook, self._count)

    def _count(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        self.left -= 1
        if self.left == 0 and trainer.global_rank == self.rank:
            if self.by_sigterm:
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                signals.request_stop(self.by_ctrl_c)


def fit(folder: Path, runs: Path, run_id: str, options: tuple[str, ...] = (), agree_every: float = 0.0) -> int:
    """Runs `ccn fit` on this rank; an existing run continues from its last checkpoint.

    Args:
        folder: Of the dataset.
        runs: Folder of the runs.
        run_id: Name of the run.
        options: More options.
        agree_every: Seconds between two agreements of the ranks; 0 for one at each step.

    Returns:
        The exit code; CRASHED after the error that the Recorder raises.
    """
    signals.reset()
    save_and_stop.AGREE_EVERY = agree_every
    place = ["--runs", str(runs), "--experiment", "test", "--run_id", run_id, "--data.folder", str(folder)]
    record = ["--trainer.callbacks=tests.training.recorder.Recorder", f"--trainer.callbacks.path={runs / run_id}.jsonl"]
    world = ["--trainer.devices", os.environ["CCN_TEST_WORLD_SIZE"], "--ckpt_path", "last_if_any"]
    return main(["fit", *place, *OPTIONS, *world, *record, *options])


def agreements(**arguments: Any) -> tuple[int, int, int]:
    """Counts in a `fit`: all-reduces of two numbers (agreements), Lightning's broadcasts, and saves of `last.ckpt`."""
    agreed, broadcasts, saves = [], [], []
    all_reduce, broadcast, save = dist.all_reduce, dist.broadcast, L.Trainer.save_checkpoint

    def counting(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if tensor.dtype == torch.int64 and tensor.numel() == 2:
            agreed.append(tensor)
        return all_reduce(tensor, *args, **kwargs)

    def counting_broadcast(*args: Any, **kwargs: Any) -> Any:
        broadcasts.append(args)
        return broadcast(*args, **kwargs)

    def counting_save(trainer: L.Trainer, path: Path, *args: Any, **kwargs: Any) -> None:
        if Path(path).name == "last.ckpt":
            saves.append(path)
        save(trainer, path, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "all_reduce", counting)
        patch.setattr(dist, "broadcast", counting_broadcast)
        patch.setattr(L.Trainer, "save_checkpoint", counting_save)
        assert fit(**arguments) == 0
    return len(agreed), len(broadcasts), len(saves)
