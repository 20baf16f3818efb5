"""Processes of `ccn` on one rank each, which train cells and score pages."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection, forkserver, reduction
from pathlib import Path
from typing import Any, Protocol

# Prefixes of the variables by which SLURM and torchrun describe a rank.
RANK_VARIABLES = ("SLURM_", "CCN_", "TORCHELASTIC_", "MASTER_", "RANK", "LOCAL_", "GROUP_", "NODE_RANK", "WORLD_SIZE")
COMMAND = "lightning_ccn.cli"
THREADS = "OMP_NUM_THREADS"
IMPORTS = "lightning_ccn.training.trainer_cli"  # with it comes what a run needs: a quarter of the time of a small cell


class CcnProcess(Protocol):
    """A process of `ccn`."""

    def wait(self, timeout: float | None = None) -> int:
        """Returns the exit code, or the negative of the signal that ended the process, when it has ended.

        Raises:
            TimeoutExpired: It has not, after so many seconds.
        """

    def terminate(self) -> None:
        """Sends SIGTERM."""


def start_ccn(words: list[str], log: Path, environment: dict[str, str], lock: int | None = None) -> CcnProcess:
    """Starts a process of `ccn`.

    Where there is no GPU, it is forked from a process that has imported what a run needs. CUDA survives no fork.

    Args:
        words: The words after `ccn`.
        log: File of all that it prints.
        environment: All of its environment variables.
        lock: Descriptor of a lock that the new process keeps too, also when this one has died.
    """
    if not visible_gpus():
        return _Forked(words, log, environment, lock)
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", COMMAND, *words],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            pass_fds=[] if lock is None else [lock],
        )


def environment(worker: int) -> dict[str, str]:
    """Environment variables of a process that runs on one rank, with one thread and one GPU.

    One thread makes the result independent of how many cells train at the same time. SLURM's and torchrun's variables
    are removed: they describe the process that starts this one.

    Args:
        worker: Number of the worker that starts the process; chooses the GPU.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(RANK_VARIABLES)}
    gpus = visible_gpus()
    if gpus:
        kept["CUDA_VISIBLE_DEVICES"] = gpus[worker % len(gpus)]
    return {**kept, THREADS: "1", "CCN_DEBUG": "1"}  # with the traceback: a run that fails leaves only its log


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use."""
    import torch

    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    return [str(number) for number in range(torch.cuda.device_count())]


class _Forked:
    """A forked process of `ccn`. See `start_ccn` for the arguments.

    multiprocessing asks all of its processes whether they have ended whenever one is started. Two threads that ask at
    the same time would take a success for a failure, so they do it in turns.
    """

    _turn = threading.Lock()

    def __init__(self, words: list[str], log: Path, environment: dict[str, str], lock: int | None) -> None:
        kept = None if lock is None else _Kept(lock)
        context = multiprocessing.get_context("forkserver")
        with self._turn:
            context.set_forkserver_preload([IMPORTS])
            with _threads_of(environment):
                forkserver.ensure_running()
            self._process = context.Process(target=_run, args=(words, str(log), os.getcwd(), environment, kept))
            self._process.start()
        self._code: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """See `CcnProcess`."""
        if self._code is None:
            connection.wait([self._process.sentinel], timeout)
            with self._turn:
                self._code = self._process.exitcode
        if self._code is None:
            raise subprocess.TimeoutExpired("ccn", timeout or 0.0)
        return self._code

    def terminate(self) -> None:
        """See `CcnProcess`."""
        self._process.terminate()


class _Kept:
    """A descriptor that a forked process gets a copy of."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __getstate__(self) -> Any:
        return reduction.DupFd(self.descriptor)

    def __setstate__(self, copy: Any) -> None:
        self.descriptor = copy.detach()


@contextmanager
def _threads_of(environment: dict[str, str]) -> Iterator[None]:
    """The libraries that the process to fork from imports read the number of threads once."""
    mine = os.environ.get(THREADS)
    os.environ[THREADS] = environment[THREADS]
    try:
        yield
    finally:
        del os.environ[THREADS]
        if mine is not None:
            os.environ[THREADS] = mine


def _run(words: list[str], log: str, folder: str, environment: dict[str, str], kept: _Kept | None) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.argv = ["ccn", *words]
    runpy.run_module(COMMAND, run_name="__main__")
