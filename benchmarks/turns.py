"""A contestant's side of the benchmark: it waits for its turn, does what it is asked, and answers with its times.

This file imports nothing but the standard library: the peers run in an environment without this package.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, Literal

ClockName = Literal["cpu", "wall"]
CLOCKS: dict[str, Callable[[], float]] = {"cpu": time.process_time, "wall": time.perf_counter}


class Turns:
    """The turns of one process.

    Args:
        pipe: Number of the file to talk through, which the benchmark opened for this process.
        clock: `cpu`: seconds of this process on any core; `wall`: seconds that pass.
    """

    def __init__(self, pipe: int, clock: ClockName) -> None:
        self._connection = Connection(pipe)
        self.now = CLOCKS[clock]

    def ready(self, **facts: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        """Says that the process is ready, and yields what it is asked: (word, arguments), each to be answered."""
        self.answer(**facts)
        while True:
            try:
                asked: tuple[str, dict[str, Any]] = self._connection.recv()
            except EOFError:  # the benchmark has what it wants, or was stopped
                return
            yield asked

    def answer(self, **facts: Any) -> None:
        """Answers what was asked, and adds the most memory that the process has held so far."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        self._connection.send({**facts, "peak_mib": peak})
