"""Trains the cells of a comparison that are not finished, several at a time.

Several processes, also on several machines, can work on the same comparison.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Protocol

from lightning_ccn.errors import CellError
from lightning_ccn.studies.comparison.cell import Cells
from lightning_ccn.studies.comparison.processes import CcnProcess, environment
from lightning_ccn.studies.comparison.protocol import Cell

PAUSE = 2.0  # seconds between two checks of what other processes have finished, and of how far a trial has come


class Trials(Protocol):
    """What follows the trials of a search."""

    def is_hopeless(self, cell: Cell) -> bool:
        """Whether a trial that is being trained need not go on."""


class Work:
    """Workers that train cells until none is left.

    Any number of processes may do so at once, on all machines that share the folder and its file locks.

    Args:
        cells: The run folders of the cells.
        ready: Returns the cells that can be trained now, in order of preference, and whether no others will follow. The
            reported runs of a system follow when its learning rate search is finished.
        say: Called with one line of text for each cell that starts, ends or fails.
        trials: Follows the trials of the search; None to train all to their end.
    """

    def __init__(
        self,
        cells: Cells,
        ready: Callable[[], tuple[Sequence[Cell], bool]],
        say: Callable[[str], None],
        trials: Trials | None = None,
    ) -> None:
        self.cells, self.ready, self.say, self.trials = cells, ready, say, trials
        self.failures: dict[Cell, CellError] = {}
        self._stop = threading.Event()
        self._processes: set[CcnProcess] = set()

    def run(self, workers: int) -> None:
        """Returns when every cell is finished, here or in another process, or has failed here.

        Args:
            workers: Number of cells to train at a time.

        Raises:
            CellError: Some cells failed; all others have been trained.
        """
        with ThreadPoolExecutor(workers) as pool:
            try:
                left = {pool.submit(self._work, number) for number in range(workers)}
                while left:  # a signal that comes just before a wait does not end it, so none is long
                    done, left = wait(left, timeout=1.0, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
            finally:  # after Ctrl-C too: no cell's process outlives the comparison
                self._stop.set()
                for process in list(self._processes):
                    process.terminate()
        if self.failures:
            lines = "\n  ".join(str(error) for error in self.failures.values())
            raise CellError(f"cells that failed: {len(self.failures)}; the same command tries them again:\n  {lines}")

    def _work(self, worker: int) -> None:
        idle_rounds = 0  # consecutive rounds in which every cell was claimed by others
        while not self._stop.is_set():
            cells, complete = self.ready()
            left = [cell for cell in cells if cell not in self.failures]
            if not left and (complete or self.failures):
                return
            idle_rounds = 0 if any(self._train(cell, worker) for cell in left) else idle_rounds + 1
            if idle_rounds:
                self._stop.wait(PAUSE)
            if idle_rounds == 2 and left and not self._processes:
                self.say(f"waiting for others to train {', '.join(f'{cell.system} {cell.id}' for cell in left)}")

    def _train(self, cell: Cell, worker: int) -> bool:
        """Trains the cell unless it is finished or another process is training it; returns whether it was trained."""
        with self.cells.claim(cell) as lock:
            if lock is None or self.cells.result(cell) is not None or self._stop.is_set():
                return False
            self.say(f"{cell.system} {cell.id}: started")
            started = time.monotonic()
            process = self.cells.start(cell, lock, environment(worker))
            self._processes.add(process)
            if self._stop.is_set():  # `run` may have ended the processes just before this one was added
                process.terminate()
            pruned = self._pruned(cell, process)
            self._processes.discard(process)
            if self._stop.is_set():
                return False
            try:
                self.cells.finish(cell, process.wait(), started, pruned)
            except CellError as error:
                self.failures[cell] = error
                self.say(f"{cell.system} {cell.id}: FAILED")
            else:
                minutes = (time.monotonic() - started) / 60
                self.say(f"{cell.system} {cell.id}: {minutes:.1f} min{', ended early: below the median' * pruned}")
            return True

    def _pruned(self, cell: Cell, process: CcnProcess) -> bool:
        """Waits for the end of the process; returns whether it was ended here, because the cell is hopeless."""
        pruned = False
        while True:
            try:
                process.wait(None if self.trials is None or cell.trial is None or pruned else PAUSE)
            except subprocess.TimeoutExpired:
                pruned = self.trials is not None and self.trials.is_hopeless(cell)
                if pruned:
                    process.terminate()
            else:
                return pruned
