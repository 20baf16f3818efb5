"""What `slurm/job.sbatch` starts once for every rank: `ccn`, with its signals heard from the first moment.

srun ... python -m lightning_ccn.training.rank fit --config runs/default/1234/jobs/1234/config.yaml
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
    """The exit code for srun; what it means stands in the job's `outcome`.

    A stop that was asked for is no error: with any other code than 0 srun would kill the ranks that are still leaving.
    """
    listen()
    job = Job.here()
    assert job is not None, "started by slurm/job.sbatch alone"
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
        job.end_with("stopped as asked")
        return 0
    if code == 2:
        job.end_with(f"refused: {job.me} says why in {job.folder / f'rank-{job.rank}.log'}")
    return code


def end_workers() -> None:
    """Kills the data workers that a stop in the middle of an epoch leaves.

    Python would ask them with SIGTERM at exit and wait, but they do not hear it: see `signals.listen`.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler takes a killed worker for an error
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
