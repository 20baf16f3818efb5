"""Processes that are forked from one that has imported what a run needs, which would take each of them seconds."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-m", "lightning_ccn.cli"]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.sharding.dlrm", "lightning_ccn.training.trainer_cli"])


class ForkedCommand:
    """A process of `ccn`, with what `Work` uses of `subprocess.Popen`.

    Args:
        command: As of `subprocess.Popen`: Python, `-m lightning_ccn.cli`, and the words.
        log: File of all that it prints.
        environment: All of its environment variables.
    """

    def __init__(self, command: list[str], log: Path, environment: dict[str, str]) -> None:
        assert command[:3] == COMMAND
        self._process = CONTEXT.Process(target=_run, args=(command[3:], str(log), environment))
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> None:
        """Returns when the process has ended.

        Raises:
            TimeoutExpired: It has not, after so many seconds.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("ccn", timeout or 0.0)

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self._process.terminate()


def _run(words: list[str], log: str, environment: dict[str, str]) -> None:
    from lightning_ccn.cli import main

    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ.clear()
    os.environ.update(environment)
    sys.exit(main(words))
