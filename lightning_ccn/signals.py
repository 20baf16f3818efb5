"""Signals that only set a flag. Imports nothing heavy, so that it can be the first thing a process does."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)

_stop_requested = threading.Event()
_terminated = threading.Event()
_interrupted = threading.Event()

STOPPING = b"\nccn: stops after this batch, and a fit saves a checkpoint; Ctrl-C again ends it at once\n"


def listen() -> None:
    """Makes `SIGNALS` set a flag from now on, instead of interrupting a save, an all-reduce or a child process.

    The signals are blocked, and a thread waits for them. Call this before any other thread starts: threads and child
    processes (data workers) inherit the blocking, and so survive signals that SLURM sends to all processes of a job.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_wait, name="signals", daemon=True).start()


def asked_to_stop() -> bool:
    """Whether one of `SIGNALS` has come, or `request_stop` was called."""
    return _stop_requested.is_set()


def request_stop(by_ctrl_c: bool = False) -> None:
    """Asks this process to stop, as a signal does.

    Args:
        by_ctrl_c: As Ctrl-C does, here or on another rank.
    """
    if by_ctrl_c:
        _interrupted.set()
    _stop_requested.set()


def reset() -> None:
    """Forgets all requests, so that another run can follow in this process."""
    _stop_requested.clear()
    _terminated.clear()
    _interrupted.clear()


def terminated(within: float = 0.0) -> bool:
    """Whether SIGTERM has come, or comes within so many seconds. SLURM sends it to every process of a job."""
    return _terminated.wait(within)


def interrupted() -> bool:
    """Whether it was Ctrl-C that asked to stop."""
    return _interrupted.is_set()


@contextmanager
def ctrl_c_stops(says: bool) -> Iterator[None]:
    """Within it, the first Ctrl-C asks to stop, as a signal of `SIGNALS` does, and the second interrupts.

    A terminal sends Ctrl-C to everything that the command has started. The ranks that another rank has started ignore
    it: the first rank tells them to stop, or ends them. An earlier run's Ctrl-C in this process is forgotten.

    Args:
        says: Whether this process says what happens.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return
    if interrupted():
        reset()
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a data worker that is just starting
            return
        if interrupted():
            signal.default_int_handler(number, frame)
        request_stop(by_ctrl_c=True)
        if says:
            os.write(2, STOPPING)

    is_first = os.environ.get("LOCAL_RANK", "0") == "0"
    before = signal.signal(signal.SIGINT, handle if is_first else signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _wait() -> None:
    while True:
        if signal.sigwait(SIGNALS) == signal.SIGTERM:
            _terminated.set()
        _stop_requested.set()
