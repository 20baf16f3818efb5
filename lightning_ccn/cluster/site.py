"""What `slurm/site.env` and SLURM say about the cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lightning_ccn.errors import SubmitError

NAMES = ("PARTITION", "ACCOUNT", "TIME", "CPUS", "SBATCH", "SIGNAL_SECONDS", "GPU_MEMORY")


def read_site(path: Path) -> dict[str, str]:
    """Values of the variables `NAMES` in a site.env, a bash script.

    Raises:
        SubmitError: bash cannot run it.
    """
    script = 'set -eu; source "$0"; for name; do printf "%s\\0" "${!name-}"; done'
    done = subprocess.run(["bash", "-c", script, str(path), *NAMES], capture_output=True, text=True)
    if done.returncode:
        raise SubmitError(f"{path}: {done.stderr.strip()}")
    return dict(zip(NAMES, done.stdout.split("\0"), strict=False))


@dataclass(frozen=True)
class Node:
    """The smallest node of a partition.

    Attributes:
        cores: Number of CPU cores.
        memory_gib: Memory in GiB.
    """

    cores: int
    memory_gib: float


def slurm_is_here() -> bool:
    """Whether this machine can submit jobs."""
    return shutil.which("sbatch") is not None


def smallest_node(partition: str) -> Node:
    """The fewest cores and the least memory of a partition's nodes; of the default partition if the name is empty.

    Raises:
        SubmitError: SLURM does not answer, there is no such partition, or it takes no jobs.
    """
    try:
        answer = call("sinfo", "--noheader", "--format=%P|%a|%c|%m")
    except SubmitError as error:
        last = str(error).rpartition("; ")[2]
        raise SubmitError(f"sbatch is here, but no cluster answers ({last}): go to your cluster's login node") from None
    rows = [line.split("|") for line in answer.splitlines()]
    names = sorted({row[0].rstrip("*") for row in rows})
    wanted = [row for row in rows if row[0].rstrip("*") == partition or (not partition and row[0].endswith("*"))]
    if not wanted:
        raise SubmitError(f"there is no partition '{partition}'; PARTITION= can be {', '.join(names)}")
    if all(row[1] != "up" for row in wanted):
        raise SubmitError(f"partition {wanted[0][0]} is {wanted[0][1]}")
    cores, memory = (min(int(row[i].rstrip("+")) for row in wanted) for i in (2, 3))
    return Node(cores, memory / 1024)


def active_jobs(folder: Path) -> list[str]:
    """Ids of the jobs in RUN/jobs that are queued or running."""
    names = [path.name for path in sorted(folder.glob("jobs/*"))]
    # squeue refuses ids that it has forgotten, so ask for all of the user's
    queued = call("squeue", "--noheader", "--me", "--array", "--format=%F %i").split()
    return [name for name in names if name in queued]


def call(*command: str) -> str:
    """Runs a command of SLURM, and returns what it prints.

    Raises:
        SubmitError: The command failed; with its error message.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_") or k == "SLURM_CONF"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().replace("\n", "; ")
        raise SubmitError(said if said.startswith(command[0]) else f"{command[0]}: {said}")
    return done.stdout.strip()
