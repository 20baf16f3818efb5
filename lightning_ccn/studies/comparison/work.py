"""Trains the cells of a comparison that nobody has trained yet, several at a time, beside others who do the same."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from lightning_ccn.errors import CellError
from lightning_ccn.studies.comparison.cell import Cells, environment
from lightning_ccn.studies.comparison.protocol import Cell

PAUSE = 2.0  # seconds between two looks at what others have finished


class Work:
    """Workers that take ready cells until none is left.

    Any number of processes, on any machines that share the folder and its file locks, may do so at once.

    Args:
        cells: where they lie.
        ready: the cells that could be trained now, in order of preference, and whether these are all: a system's
            reported runs need its search.
        say: called with a line for each cell that starts, ends or fails.
    """

    def __init__(
        self, cells: Cells, ready: Callable[[], tuple[Sequence[Cell], bool]], say: Callable[[str], None]
    ) -> None:
        self.cells, self.ready, self.say = cells, ready, say
        self.failures: dict[Cell, CellError] = {}
        self._stop = threading.Event()
        self._processes: set[subprocess.Popen[bytes]] = set()

    def run(self, workers: int) -> None:
        """Returns when every cell is trained, by whomever, or has failed here.

        Raises:
            CellError: cells failed; the others are trained all the same.
        """
        with ThreadPoolExecutor(workers) as pool:
            try:
                for future in [pool.submit(self._work, number) for number in range(workers)]:
                    future.result()
            finally:  # after Ctrl-C too: no cell outlives its comparison
                self._stop.set()
                for process in list(self._processes):
                    process.terminate()
        if self.failures:
            lines = "\n  ".join(str(error) for error in self.failures.values())
            raise CellError(f"cells that did not train: {len(self.failures)}; the same command tries again:\n  {lines}")

    def _work(self, worker: int) -> None:
        rounds = 0  # in a row without a free cell
        while not self._stop.is_set():
            cells, complete = self.ready()
            left = [cell for cell in cells if cell not in self.failures]
            if not left and (complete or self.failures):
                return
            rounds = 0 if any(self._take(cell, worker) for cell in left) else rounds + 1
            if rounds:
                self._stop.wait(PAUSE)
            if rounds == 2 and left and not self._processes:
                self.say(f"waiting for others to train {', '.join(f'{cell.system} {cell.id}' for cell in left)}")

    def _take(self, cell: Cell, worker: int) -> bool:
        """Trains the cell, unless somebody has or is at it; whether it did."""
        with self.cells.claim(cell) as lock:
            if lock is None or self.cells.result(cell) is not None or self._stop.is_set():
                return False
            self.say(f"{cell.system} {cell.id}: started")
            started = time.monotonic()
            process = self.cells.start(cell, lock, environment(worker))
            self._processes.add(process)
            if self._stop.is_set():  # since the claim
                process.terminate()
            code = process.wait()
            self._processes.discard(process)
            if self._stop.is_set():
                return False
            try:
                self.cells.finish(cell, code, started)
            except CellError as error:
                self.failures[cell] = error
                self.say(f"{cell.system} {cell.id}: FAILED")
            else:
                self.say(f"{cell.system} {cell.id}: {(time.monotonic() - started) / 60:.1f} min")
            return True
