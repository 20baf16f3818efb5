"""Signals that only set a flag. Imports nothing heavy, so that it can be the first thing a process does."""

from __future__ import annotations

import signal
import threading

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)

_stop_requested = threading.Event()
_terminated = threading.Event()


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


def request_stop() -> None:
    """Asks this process to stop, as a signal does."""
    _stop_requested.set()


def reset() -> None:
    """Forgets all requests, so that another run can follow in this process."""
    _stop_requested.clear()
    _terminated.clear()


def terminated(within: float = 0.0) -> bool:
    """Whether SIGTERM has come, or comes within so many seconds. SLURM sends it to every process of a job."""
    return _terminated.wait(within)


def _wait() -> None:
    while True:
        if signal.sigwait(SIGNALS) == signal.SIGTERM:
            _terminated.set()
        _stop_requested.set()
