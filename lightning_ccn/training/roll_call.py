"""The roll call: before the first batch all ranks of a job connect, or the job ends and names the missing nodes.

Without it, a host name that one node cannot resolve, a wrong network interface or a broken GPU causes half an hour of
silence, and then a time-out that names a node that only waited.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any

import torch
import torch.distributed as dist

from lightning_ccn.errors import NodeError
from lightning_ccn.sharding import TorchRecStrategy
from lightning_ccn.sharding.checkpoint import versions
from lightning_ccn.training.job import Job

PRESENT = "is connected"


def roll_call(job: Job, strategy: TorchRecStrategy) -> None:
    """Creates the process group, which the strategy will use, and tests it with an all-reduce.

    Every rank writes what it is doing to its record in the job's folder, so that the others can report it.

    Raises:
        NodeError: This node cannot resolve the master's name, or the all-reduce gives a wrong result. After any other
            failure the process ends when the time is over.
    """
    over = threading.Timer(job.limit, _give_up, [job])
    over.daemon = True
    over.start()
    job.write(state=f"is looking up the master's name, {job.master}", **_facts(strategy.root_device))
    try:
        socket.getaddrinfo(job.master, job.port)
    except (OSError, UnicodeError) as error:
        message = (
            f"{job.me}: the master's name '{job.master}' does not resolve: {error}; repair it, or exclude the node"
        )
        job.end_with(f"refused: {message}")
        raise NodeError(message) from None
    if job.rank:
        _reach(job)
    job.write(state="has reached the master, and waits for other ranks")
    strategy.setup_environment()
    one = torch.ones(1, device=strategy.root_device)
    dist.all_reduce(one)
    if int(one) != job.world_size:
        raise NodeError(f"{job.me}: an all-reduce of ones over {job.world_size} ranks gave {one.item():g}")
    over.cancel()
    job.write(state=PRESENT)


def _reach(job: Job) -> None:
    """Waits until the master listens: it may start later than this rank."""
    while True:
        try:
            socket.create_connection((job.master, job.port), timeout=5).close()
            return
        except OSError as error:
            job.write(state=f"cannot reach the master at {job.master}:{job.port}: {error}")
            time.sleep(1)  # each attempt of each rank writes a file to the shared disk


def _give_up(job: Job) -> None:
    """Prints which ranks are missing, and ends this process, and so the job."""
    message = missing(job)
    print(f"ccn: error: {message}", flush=True)
    job.end_with(f"refused: {message}")
    os._exit(2)


def missing(job: Job) -> str:
    """Names the ranks that have not connected, by node, with what they were last doing.

    Ranks that wait for others are named only if all missing ranks do.
    """
    states = {rank: job.state_of(rank) for rank in range(job.world_size)}
    absent = {rank: state for rank, state in states.items() if state != PRESENT}
    failing = {rank: state for rank, state in absent.items() if not state.startswith("has reached")} or absent
    nodes: dict[str, list[str]] = {}
    for rank, state in failing.items():
        nodes.setdefault(job.node_of(rank), []).append(f"rank {rank} {state}")
    listed = "; ".join(f"node {node}: {', '.join(ranks)}" for node, ranks in nodes.items())
    return f"not all ranks have connected within {job.limit:g} s. {listed}"


def _facts(device: torch.device) -> dict[str, Any]:
    """Versions and GPU, for the rank's record."""
    facts: dict[str, Any] = {"versions": versions()}
    if device.type == "cuda":
        nccl = ".".join(map(str, torch.cuda.nccl.version()))
        facts |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda, "nccl": nccl}
    return facts
