"""Pairs of ranks for tests of `sharding.process_group`, which wait, fail, hang or leave: `python lone_rank.py FOLDER`.

It writes exit codes and output of all cases to FOLDER. All are forked from one process, which has imported torch.

The backend `stuck` is as NCCL is when a rank fails alone: its operations do not notice, and to leave it takes for ever.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _set_pg_timeout

from lightning_ccn.sharding import process_group
from lightning_ccn.sharding.process_group import ends_together, fails, join, loss_of_rank

LONG = 80.0
CODE = 3


class Stuck(dist.ProcessGroup):
    """Counts operations, and ends by an abort only."""

    operations = 0
    abort_hangs = False
    shutdown_hangs = True

    def getBackendName(self) -> str:
        return "stuck"

    def _get_sequence_number_for_group(self) -> int:
        return self.operations

    def shutdown(self) -> None:
        if self.shutdown_hangs:
            time.sleep(LONG)

    def abort(self) -> None:
        if self.abort_hangs:
            time.sleep(LONG)


def act(case: str, rank: int) -> None:
    """What the rank does after it has joined."""
    if case in ("fails", "abort_hangs"):
        if rank == 0:
            time.sleep(LONG)  # as in an operation that rank 1 will not join
        fails(ValueError("a bad\npage"), CODE)
        sys.exit(CODE)
    if case == "store_fails":
        if rank == 1:
            time.sleep(LONG)
        time.sleep(1)  # rank 1 has seen the store
        os.kill(os.getpid(), signal.SIGKILL)
    if case == "all_fail":
        fails(ValueError("the same"), CODE)
        time.sleep(2 * rank)  # longer than the other takes
        sys.exit(CODE)
    if case == "waits":
        Stuck.operations = 5 - rank
        while rank == 1 or "has waited" not in Path("/proc/self/fd/2").read_text():
            time.sleep(0.1)
        os._exit(0)
    if case == "parts_early":
        time.sleep(4 * rank)  # the store is gone long before rank 1 leaves
    if case == "parts":
        time.sleep(2 * rank)
        ends_together()
        fails(ValueError("not alone"), CODE)
    if case in ("late", "stopped", "dies"):
        if rank == 1:
            time.sleep(1)
            if case != "late":
                os.kill(os.getpid(), signal.SIGSTOP if case == "stopped" else signal.SIGKILL)
            time.sleep(LONG)
        try:
            dist.all_reduce(torch.ones(1))
        except RuntimeError as error:
            print(loss_of_rank(error))
        os._exit(0)


CASES = {  # case -> backend, timeout, the ranks that end by themselves
    "fails": ("stuck", 30.0, (0, 1)),
    "abort_hangs": ("stuck", 30.0, (0, 1)),
    "store_fails": ("stuck", 30.0, (0, 1)),
    "all_fail": ("stuck", 30.0, (0, 1)),
    "waits": ("stuck", 3.0, (0,)),
    "parts_early": ("stuck", 30.0, (0, 1)),
    "parts": ("gloo", 30.0, (0, 1)),
    "late": ("gloo", 8.0, (0,)),
    "stopped": ("gloo", 8.0, (0,)),
    "dies": ("gloo", 30.0, (0, 1)),
}


def run(case: str, rank: int, port: int) -> None:
    """One rank of a case."""
    backend, timeout, _ = CASES[case]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    process_group.BEAT, process_group.GRACE, process_group.ABORT_WITHIN = 0.3, 1.0, 1.0
    process_group.SILENT = 2.0 if case == "store_fails" else 30.0
    process_group.PART_WITHIN = 1.0 if case == "parts_early" else 20.0
    Stuck.abort_hangs = case == "abort_hangs"
    Stuck.shutdown_hangs = case != "parts_early"
    if case == "abort_hangs":
        atexit.register(time.sleep, LONG)  # called after `leave`, as destructors are
    dist.Backend.register_backend("stuck", lambda store, rank, size, _: Stuck(store, rank, size), devices=["cpu"])
    dist.init_process_group(backend, timeout=timedelta(seconds=LONG))  # all ranks start at once, and slowly
    if backend == "gloo":
        dist.all_reduce(torch.ones(1))
        _set_pg_timeout(timedelta(seconds=timeout))
    join(timeout)
    act(case, rank)


def start(folder: Path) -> dict[tuple[str, int], int]:
    """Forks the ranks of all cases; process ids by case and rank. In a rank, it runs the rank and ends the process."""
    started = {}
    for case in CASES:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for rank in range(2):
            started[case, rank] = os.fork()
            if not started[case, rank]:
                for number, stream in ((1, "out"), (2, "err")):
                    os.dup2(os.open(folder / f"{case}{rank}.{stream}", os.O_WRONLY | os.O_CREAT), number)
                run(case, rank, port)
                sys.exit()  # as a rank does: with all that Python does at exit
    return started


def main(folder: Path) -> None:
    """Runs all cases, and writes the ranks' exit codes; None is that of a rank that has not ended."""
    started = start(folder)
    deadline = time.monotonic() + LONG
    codes: dict[str, list[int | None]] = {case: [None, None] for case in CASES}
    waited = {(case, rank) for case, (_, _, ranks) in CASES.items() for rank in ranks}
    while waited and time.monotonic() < deadline:
        for case, rank in sorted(waited):
            ended, status = os.waitpid(started[case, rank], os.WNOHANG)
            if ended:
                codes[case][rank] = os.waitstatus_to_exitcode(status)
                waited.remove((case, rank))
        time.sleep(0.05)
    for (case, rank), process in started.items():
        if codes[case][rank] is None:
            os.kill(process, signal.SIGKILL)
    (folder / "codes.json").write_text(json.dumps(codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
