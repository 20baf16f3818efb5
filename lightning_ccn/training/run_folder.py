"""The folder of a run: how it gets its name, who may write to it, and when it is removed again."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from pathlib import Path

from lightning_ccn.data.file_lock import FileLock, HeldError
from lightning_ccn.errors import OptionError
from lightning_ccn.sharding import ShardingError

LOCK = ".lock"
BEFORE_THE_FIRST_STEP = {"config.yaml", "validate.yaml", "test.yaml", "plan.json", "diagnostics.json", LOCK}


def remove_if_empty(folder: Path) -> None:
    """Removes a run's folder if it only holds files that are written before the first step."""
    left = [path for path in folder.rglob("*") if not path.is_dir()]
    if {path.name for path in left} <= BEFORE_THE_FIRST_STEP:
        shutil.rmtree(folder, ignore_errors=True)


def run_id(runs: Path | None, continues: bool = False) -> str:
    """Name of a run: a W&B sweep's run id, SLURM's job id, or the time. Ranks that Lightning starts inherit it.

    Args:
        runs: Folder in which to make the folder of a new run, so that no other run takes its name.
        continues: The run has a folder already, which SLURM's job id names.

    Raises:
        ShardingError: torchrun started the ranks, which share nothing to take a name from; or the folder cannot be
            made.
    """
    if name := name_of_job(continues):
        return name
    job = os.environ.get("SLURM_JOB_ID")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise ShardingError("under torchrun every rank must know the run's name: add --run_id NAME")
    name = job or time.strftime("%Y%m%d-%H%M%S")
    os.environ["CCN_RUN_ID"] = _claim(runs, name) if runs else name
    return os.environ["CCN_RUN_ID"]


def name_of_job(continues: bool) -> str | None:
    """Name of a run that the environment alone tells, on every rank alike; see `run_id`."""
    if "CCN_RUN_ID" in os.environ:
        return os.environ["CCN_RUN_ID"]
    if "WANDB_SWEEP_ID" in os.environ and "WANDB_RUN_ID" in os.environ:  # an agent may start many runs in one job
        return os.environ["WANDB_RUN_ID"]
    job = os.environ.get("SLURM_JOB_ID")
    if job and (continues or _srun_started_several()):  # nothing to agree on a name by, but the job and its steps
        step = os.environ.get("SLURM_STEP_ID", "0")
        return job if step == "0" or not step.isdigit() else f"{job}.{step}"
    return None


def _srun_started_several() -> bool:
    return "SLURM_PROCID" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1


def holds_a_run(folder: Path) -> bool:
    """Whether a fit has begun in the folder; `ccn submit` and `ccn compare` put other files there before."""
    return (folder / "config.yaml").exists() or any((folder / "checkpoints").glob("*"))


class RunLock:
    """Makes this process the only one that writes to a run's folder, until `release` or until it ends in any way.

    Args:
        folder: Folder of the run; it is made.

    Raises:
        OptionError: Another process writes to it, or the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / LOCK)
        except OSError as error:
            raise OptionError(f"{folder}: cannot be written to: {error.strerror}; name another with --runs") from None
        except HeldError as owner:
            raise OptionError(
                f"{folder}: {owner} is running in this folder; name another run with --run_id, or wait for its end"
            ) from None

    def release(self) -> None:
        """Lets another process run in the folder, or another run of this one."""
        self._lock.release()


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
