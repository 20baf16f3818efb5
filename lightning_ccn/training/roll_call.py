"""Before the first batch all ranks of a job meet, or the job ends with the names of the nodes that did not come.

Without it a name that one node cannot resolve, a wrong network interface or a dead GPU is half an hour of silence, and
then a time-out that blames the node that waited.
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

PRESENT = "is there"


def roll_call(job: Job, strategy: TorchRecStrategy) -> None:
    """Makes the process group, and tries it; the strategy finds it there and uses it.

    Every rank writes what it is doing to its record in the job's folder, so that those who wait know about the others.

    Raises:
        NodeError: this node cannot find the master. Other troubles end the process when the time is over.
    """
    over = threading.Timer(job.limit, _give_up, [job])
    over.daemon = True
    over.start()
    job.write(state=f"is looking up the master's name, {job.master}", **_facts(strategy.root_device))
    try:
        socket.getaddrinfo(job.master, job.port)
    except (OSError, UnicodeError) as error:
        words = f"{job.me}: the master's name '{job.master}' does not resolve: {error}; mend it, or exclude the node"
        job.end_with(f"refused: {words}")
        raise NodeError(words) from None
    if job.rank:
        _reach(job)
    job.write(state="has reached the master, and waits for the others")
    strategy.setup_environment()
    one = torch.ones(1, device=strategy.root_device)
    dist.all_reduce(one)
    if int(one) != job.world_size:
        raise NodeError(f"{job.me}: an all-reduce of ones over {job.world_size} ranks gave {one.item():g}")
    over.cancel()
    job.write(state=PRESENT)


def _reach(job: Job) -> None:
    """Until the master listens: it may start later than this rank."""
    while True:
        try:
            socket.create_connection((job.master, job.port), timeout=5).close()
            return
        except OSError as error:
            job.write(state=f"cannot reach the master at {job.master}:{job.port}: {error}")
            time.sleep(1)  # each try of each rank is a file on the shared disk


def _give_up(job: Job) -> None:
    """Ends this process, and with it the job."""
    words = missing(job)
    print(f"ccn: error: {words}", flush=True)
    job.end_with(f"refused: {words}")
    os._exit(2)


def missing(job: Job) -> str:
    """Who has not come, by node, with what the ranks there were doing.

    Ranks that wait for others are named only where none is to blame.
    """
    states = {rank: job.state_of(rank) for rank in range(job.world_size)}
    absent = {rank: state for rank, state in states.items() if state != PRESENT}
    to_blame = {rank: state for rank, state in absent.items() if not state.startswith("has reached")} or absent
    nodes: dict[str, list[str]] = {}
    for rank, state in to_blame.items():
        nodes.setdefault(job.node_of(rank), []).append(f"rank {rank} {state}")
    listed = "; ".join(f"node {node}: {', '.join(ranks)}" for node, ranks in nodes.items())
    return f"not all ranks have met within {job.limit:g} s. {listed}"


def _facts(device: torch.device) -> dict[str, Any]:
    """Versions and accelerator, for the record."""
    facts: dict[str, Any] = {"versions": versions()}
    if device.type == "cuda":
        nccl = ".".join(map(str, torch.cuda.nccl.version()))
        facts |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda, "nccl": nccl}
    return facts
