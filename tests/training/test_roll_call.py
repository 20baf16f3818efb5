"""Ranks that do not all meet end within the limit, with the name of the node that is to blame."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_ccn.training.job import Job
from lightning_ccn.training.roll_call import PRESENT, missing

NODES = "n1 n2"


def start(folder: Path, dataset: Path, rank: int, master: str = "127.0.0.1") -> subprocess.Popen[str]:
    """One rank of a job of two, as srun would start it; nobody starts the other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"CCN_JOB": str(folder), "CCN_NODES": NODES, "ROLL_CALL_SECONDS": "4"}
    meeting = {"MASTER_ADDR": master, "MASTER_PORT": str(port)}
    slurm = {"JOB_ID": "7", "NTASKS": "2", "NTASKS_PER_NODE": "1", "NNODES": "2", "LOCALID": "0", "JOB_NAME": "test"}
    slurm |= {"PROCID": str(rank), "NODEID": str(rank)}
    folder.mkdir()
    command = ["fit", "--data.folder", str(dataset), "--runs", str(folder), "--wandb", "off"]
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "lightning_ccn.job_rank", *command, "--trainer.num_nodes", "2"],
        env=os.environ | job | meeting | {f"SLURM_{name}": value for name, value in slurm.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_a_job_whose_ranks_do_not_meet_ends_and_names_the_node(dataset: Path, tmp_path: Path) -> None:
    ranks = {
        "alone": start(tmp_path / "alone", dataset, rank=0),
        "unreachable": start(tmp_path / "unreachable", dataset, rank=1),
        "unknown": start(tmp_path / "unknown", dataset, rank=1, master="n1..invalid"),
    }
    for name, rank in ranks.items():
        output, _ = rank.communicate(timeout=100)
        assert rank.returncode == 2, output
        assert "ccn: error: " in output, name
    said = {name: (tmp_path / name / "outcome").read_text() for name in ranks}
    assert said["alone"].startswith("refused: not all ranks have connected within 4 s. node n2: rank 1 has not started")
    assert "node n2: rank 1 cannot reach the master at 127.0.0.1:" in said["unreachable"]
    assert said["unknown"].startswith("refused: node n2, rank 1: the master's name 'n1..invalid' does not resolve")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """The first rank of six, two on each node."""
    nodes = ["n1", "n2", "n3"]
    return Job(tmp_path, nodes, rank=0, world_size=6, ranks_per_node=2, master="n1", port=1, limit=60.0)


def write(job: Job, states: dict[int, str]) -> None:
    (job.folder / "ranks").mkdir()
    for rank, state in states.items():
        (job.folder / "ranks" / f"{rank}.json").write_text(json.dumps({"state": state}))


def test_ranks_that_wait_are_not_blamed_where_another_is_missing(job: Job) -> None:
    waits = "has reached the master, and waits for other ranks"
    write(job, {0: waits, 1: waits, 2: "is starting", 3: waits, 5: waits})
    assert missing(job) == (
        "not all ranks have connected within 60 s. node n2: rank 2 is starting; node n3: rank 4 has not started"
    )


def test_where_all_reached_the_master_those_that_wait_are_named(job: Job) -> None:
    waits = "has reached the master, and waits for other ranks"
    write(job, {0: PRESENT, 1: PRESENT, 2: PRESENT, 3: PRESENT, 4: waits, 5: waits})
    assert missing(job) == f"not all ranks have connected within 60 s. node n3: rank 4 {waits}, rank 5 {waits}"
