"""The threads that score, and the places of those who wait for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from lightning_ccn.serving.service.limits import Refusal

T = TypeVar("T")


class ScoringThreads:
    """Runs work in threads, a bounded number at a time; ONNX Runtime and numpy let go of Python's lock.

    Args:
        workers: Threads.
        most_waiting: How many more may be received or wait for a thread.

    Attributes:
        places: How many may be received, wait or run.
        taken: How many do now.
    """

    def __init__(self, workers: int, most_waiting: int) -> None:
        self.places, self.taken = workers + most_waiting, 0
        self._free = asyncio.Semaphore(workers)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="scoring")

    @contextmanager
    def place(self) -> Iterator[None]:
        """Within it, one place is taken.

        Raises:
            Refusal: 503; there is none.
        """
        if self.taken >= self.places:
            raise Refusal(503, f"{self.taken} requests are at work or waiting; try again later", {"retry-after": "1"})
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    async def run(self, work: Callable[[], T], deadline: float) -> T:
        """Runs `work` when a thread is free.

        Args:
            work: What to run; what it raises is raised here.
            deadline: Of `time.monotonic`.

        Raises:
            Refusal: 503, it did not begin in time; 504, it did not end in time. A thread that has begun goes on, and
                is free again when it ends.
        """
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._free.acquire()
        except TimeoutError:
            raise Refusal(503, "no thread was free in time; try again later", {"retry-after": "1"}) from None
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        running.add_done_callback(self._end)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await asyncio.shield(running)
        except TimeoutError:
            raise late() from None

    def _end(self, running: asyncio.Future[T]) -> None:
        self._free.release()
        if not running.cancelled():
            running.exception()  # read, since nobody else may be waiting for it


def late() -> Refusal:
    """What is said when the time is over."""
    return Refusal(504, "scoring took too long; ask for fewer candidates or requests at once")
