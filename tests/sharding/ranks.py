"""Real ranks for tests: processes that are started once, and form a new gloo group for each call."""

from __future__ import annotations

import atexit
import faulthandler
import os
import pickle
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

from tests.forks import CONTEXT
from tests.garbage import collect_if_grown

RANKS = 3
LIMIT = 300.0  # seconds for one call; after that the test fails. A busy machine may stand still for minutes


class RankError(RuntimeError):
    """A rank raised an error, died or hangs; the message has its traceback."""


class Ranks:
    """`RANKS` processes that wait for calls."""

    def __init__(self) -> None:
        self.pipes: list[Connection] = []
        self.processes = []
        for _ in range(RANKS):
            ours, theirs = CONTEXT.Pipe()
            process = CONTEXT.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()

    def show_stacks(self, world_size: int) -> None:
        """Has each rank print the stacks of its threads, to tell a slow machine from a deadlock."""
        for process in self.processes[:world_size]:
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, signal.SIGUSR2)
                time.sleep(1)  # one after the other

    def call(self, world_size: int, function: Callable[..., Any], kwargs: dict[str, Any]) -> list[Any]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for rank, pipe in enumerate(self.pipes[:world_size]):
            pipe.send_bytes(pickle.dumps((rank, world_size, port, function, kwargs)))
        results: dict[int, Any] = {}
        while len(results) < world_size:
            waiting = [pipe for rank, pipe in enumerate(self.pipes[:world_size]) if rank not in results]
            ready = wait(waiting, timeout=LIMIT)
            if not ready:
                self.show_stacks(world_size)
                raise RankError(f"ranks {sorted(set(range(world_size)) - results.keys())} hang in {function.__name__}")
            for rank, pipe in enumerate(self.pipes):
                if pipe not in ready:
                    continue
                try:
                    good, results[rank] = pickle.loads(pipe.recv_bytes())
                except EOFError:
                    raise RankError(f"rank {rank} died in {function.__name__}") from None
                if not good:
                    raise RankError(f"rank {rank}:\n{results[rank]}")
        return [results[rank] for rank in range(world_size)]


_started: Ranks | None = None


def on_ranks(world_size: int, function: Callable[..., Any], **kwargs: Any) -> list[Any]:
    """Call a module-level `function(**kwargs)` on `world_size` ranks, and return its results in the order of the ranks.

    `torch.distributed` is not initialised yet: a Trainer with `devices=world_size` does that.
    """
    global _started
    if _started is None:
        _started = Ranks()
        atexit.register(_started.stop)
    try:
        return _started.call(world_size, function, kwargs)
    except RankError:  # the other ranks may hang in a collective operation, so the next call gets new processes
        _started.stop()
        _started = None
        raise


def _serve(pipe: Connection) -> None:
    import torch
    import torch.distributed as dist

    from lightning_ccn.sharding.torchrec_private import forget_first_world

    torch.set_num_threads(1)
    faulthandler.register(signal.SIGUSR2, file=sys.stderr, all_threads=True)
    while True:
        rank, world_size, port, function, kwargs = pickle.loads(pipe.recv_bytes())
        os.environ |= {
            "LOCAL_RANK": str(rank),
            "NODE_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "CCN_TEST_WORLD_SIZE": str(world_size),
        }
        try:
            answer = (True, function(**kwargs))
        except BaseException:
            answer = (False, traceback.format_exc())
        pipe.send_bytes(pickle.dumps(answer))
        if dist.is_initialized():
            dist.destroy_process_group()
        forget_first_world()
        collect_if_grown()
