"""The benchmark's side of a contest: starts one process a contestant, and gives them turns, one at a time."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
START_WITHIN = 300.0  # seconds; tables of 80 million rows take their time
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Contestant:
    """One contestant: a process, or one process a rank.

    The processes are separate, so that each has its own memory and none warms another's caches. They print into a log.

    Args:
        name: Name of the contestant.
        command: The command; `{pipe}` in it becomes the number of the file to talk through.
        scratch: Folder for the log.
        threads: Threads of each process.
        ranks: Number of processes, as a training on several ranks has.
    """

    def __init__(self, name: str, command: Sequence[str], scratch: Path, threads: int = 1, ranks: int = 1) -> None:
        self.name, self._log = name, scratch / f"{name}.log"
        self._command, self._threads, self._ranks = command, threads, ranks
        self._processes: list[subprocess.Popen[bytes]] = []
        self._pipes: list[Connection] = []

    def start(self) -> None:
        """Starts the processes, without waiting for them."""
        port = _free_port()
        with self._log.open("w") as log:
            for rank in range(self._ranks):
                ours, theirs = Pipe()
                process = subprocess.Popen(
                    [word.replace("{pipe}", str(theirs.fileno())) for word in self._command],
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=_environment(self._threads, _of_rank(rank, port) if self._ranks > 1 else {}),
                    pass_fds=[theirs.fileno()],
                )
                theirs.close()  # or the end of the process would not be the end of the pipe
                self._pipes.append(ours)
                self._processes.append(process)

    def wait(self) -> dict[str, Any]:
        """Waits until all processes are ready, and returns what the first has to say about itself.

        Raises:
            RuntimeError: One of them has ended, or takes too long.
        """
        if not all(pipe.poll(START_WITHIN) for pipe in self._pipes):
            self._fail()
        return self._answers()[0]

    def ask(self, word: str, **arguments: Any) -> dict[str, Any]:
        """Gives all processes a turn at the same time, and adds their answers up.

        Returns:
            The first process's answer, with the sum over processes of `seconds` and `items`, and the most `peak_mib`.

        Raises:
            RuntimeError: A process has ended.
        """
        with suppress(BrokenPipeError):  # then there is no answer either
            for pipe in self._pipes:
                pipe.send((word, arguments))
        answers = self._answers()
        summed: dict[str, Any] = {
            key: sum(answer[key] for answer in answers) for key in ("seconds", "items") if key in answers[0]
        }
        return {**answers[0], **summed, "peak_mib": max(answer["peak_mib"] for answer in answers)}

    def stop(self) -> None:
        """Ends the processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.kill()  # they have nothing to save
            process.wait()

    def _answers(self) -> list[dict[str, Any]]:
        try:
            return [pipe.recv() for pipe in self._pipes]
        except (EOFError, ConnectionResetError):
            self._fail()

    def _fail(self) -> NoReturn:
        last = self._log.read_text(errors="replace").strip().splitlines()[-15:]
        raise RuntimeError("\n".join([f"{self.name} ended, or did not start in time; its last words:", *last]))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment(threads: int, more: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, **dict.fromkeys(THREADS, str(threads)), **more}


def _of_rank(rank: int, port: int) -> dict[str, str]:
    """What tells Lightning that the ranks of this machine are started from outside."""
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "LOCAL_RANK": str(rank)}
