"""The folder of a run: how it gets its name, and when it is removed again."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from pathlib import Path

from lightning_ccn.sharding import ShardingError

BEFORE_THE_FIRST_STEP = {"config.yaml", "validate.yaml", "test.yaml", "predict.yaml", "plan.json", "diagnostics.json"}


def remove_if_empty(folder: Path) -> None:
    """Removes a run's folder if it only holds files that are written before the first step."""
    left = [path for path in folder.rglob("*") if not path.is_dir()]
    if {path.name for path in left} <= BEFORE_THE_FIRST_STEP:
        shutil.rmtree(folder, ignore_errors=True)


def run_id(runs: Path | None) -> str:
    """Name of a new run: a W&B sweep's run id, SLURM's job id, or the time. Ranks that Lightning starts inherit it.

    Args:
        runs: Folder in which to make the folder of a run that is named by the time, so that no other run takes it.

    Raises:
        ShardingError: torchrun started the ranks, which share nothing to take a name from; or the folder cannot be
            made.
    """
    if (
        "WANDB_SWEEP_ID" in os.environ and "WANDB_RUN_ID" in os.environ
    ):  # a sweep's agent may start many runs in one job
        return os.environ["WANDB_RUN_ID"]
    if "SLURM_JOB_ID" in os.environ:
        return os.environ["SLURM_JOB_ID"]
    if "TORCHELASTIC_RUN_ID" in os.environ and "CCN_RUN_ID" not in os.environ:
        raise ShardingError("under torchrun every rank must know the run's name: add --run_id NAME")
    if "CCN_RUN_ID" not in os.environ:
        now = time.strftime("%Y%m%d-%H%M%S")
        os.environ["CCN_RUN_ID"] = _claim(runs, now) if runs else now
    return os.environ["CCN_RUN_ID"]


def _claim(runs: Path, name: str) -> str:
    """Makes a folder of that name, with a number added if another run took the name in the same second."""
    for candidate in itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2))):
        try:
            (runs / candidate).mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise ShardingError(
                f"{runs}: cannot make a run's folder there ({error}); name another with --runs"
            ) from None
        return candidate
    raise AssertionError("there is always a next number")
