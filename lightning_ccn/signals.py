"""Signals that only set a flag. Imports nothing heavy, so that it can be the first thing a process does."""

from __future__ import annotations

import signal
import threading

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)

_asked = threading.Event()
_terminated = threading.Event()


def listen() -> None:
    """From now on `SIGNALS` set a flag, and interrupt nothing: no save, no collective operation, no child process.

    They are blocked and a thread waits for them. Call this before any other thread starts: threads and child processes
    (data workers) inherit the blocking, and so survive signals that SLURM sends to all of a job.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_wait, name="signals", daemon=True).start()


def asked_to_stop() -> bool:
    """Whether one of `SIGNALS` has come."""
    return _asked.is_set()


def terminated(within: float = 0.0) -> bool:
    """Whether it was SIGTERM, which SLURM sends to every process of a job, or is so in as many seconds from now."""
    return _terminated.wait(within)


def _wait() -> None:
    while True:
        if signal.sigwait(SIGNALS) == signal.SIGTERM:
            _terminated.set()
        _asked.set()
