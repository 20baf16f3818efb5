"""The program of each rank of `slurm/job.sbatch`: runs `ccn` with signal handling from the first moment.

srun ... python -m lightning_ccn.job_rank fit --config runs/default/1234/jobs/1234/config.yaml
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import signal
import sys
import time

from lightning_ccn.signals import listen
from lightning_ccn.training.job import Job


def main(args: list[str]) -> int:
    """Runs `ccn` with these arguments, and writes how it ended to the job's `outcome`.

    Returns:
        The exit code for srun: 0 also for a requested stop, since srun kills the other ranks if one fails.
    """
    listen()
    job = Job.here()
    assert job is not None, "only slurm/job.sbatch starts this"
    now = time.strftime("%F %T")
    print(f"{now} {job.me} of {job.world_size}, starts")
    job.write(
        state="is starting",
        started=now,
        rank=job.rank,
        node=platform.node(),
        process=os.getpid(),
        cores=sorted(os.sched_getaffinity(0)),
        threads=os.environ.get("OMP_NUM_THREADS"),
    )

    from lightning_ccn.cli import STOPPED, main

    code = main(args)
    end_workers()
    if code == STOPPED:
        job.end_with("stopped as requested")
        return 0
    if code == 2:
        job.end_with(f"refused: {job.me} says why in {job.folder / f'rank-{job.rank}.log'}")
    return code


def end_workers() -> None:
    """Kills the data workers that are left after a stop in the middle of an epoch.

    At exit Python would send them SIGTERM and wait, but they have inherited its blocking: see `signals.listen`.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler treats a killed worker as an error
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
