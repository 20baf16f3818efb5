"""The run folders of a comparison's cells. Each cell is trained once, by `ccn fit` in a process of its own."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lightning_ccn.callbacks.page_effects_file import USER, PageEffectsFile
from lightning_ccn.data.leave_out import FILE
from lightning_ccn.errors import CellError, DataError
from lightning_ccn.studies.comparison.processes import CcnProcess, start_ccn, visible_gpus
from lightning_ccn.studies.comparison.protocol import Cell, LeftOut

PAGE_EFFECTS = "page_effects.npz"
LEFT_OUT = "left_out"  # beside the folder of the cells: the dataset folders that leave something out
WORKERS = "--data.workers"
RESULT = "cell.json"  # written last: a run folder with this file is finished


class Cells:
    """The run folders of a comparison's cells.

    Args:
        folder: Folder that holds all run folders.
        shared: Options of `ccn fit` for every cell; they come before the cell's own.
        configs: YAML file of each system; it comes after `shared`.
    """

    def __init__(self, folder: Path, shared: Sequence[str], configs: dict[str, Path]) -> None:
        self.folder, self.shared, self.configs = folder, shared, configs

    def path(self, cell: Cell) -> Path:
        """The cell's run folder."""
        return self.folder / cell.system / cell.id

    def data(self, left_out: LeftOut) -> Path:
        """The dataset folder that leaves this out, see `leave_out`; runs with something left out read it."""
        return self.folder.with_name(LEFT_OUT) / left_out.folder

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """What `finish` wrote of a finished cell; None if it is not finished.

        Raises:
            DataError: The cell in the folder was trained with other options.
        """
        file = self.path(cell) / RESULT
        if not file.exists():
            return None
        result: dict[str, Any] = json.loads(file.read_text())
        wanted, used = self._options(cell), result["options"]
        if used != wanted or result.get("left_out") != _left_out(cell):
            differences = sorted(set(wanted) ^ set(used)) or ["their order" if used != wanted else "what is left out"]
            raise DataError(
                f"{file}: this cell was trained with other options ({', '.join(differences)}): "
                "give the comparison another --output, or delete that folder"
            )
        return result

    @contextmanager
    def claim(self, cell: Cell) -> Iterator[int | None]:
        """Locks the cell, so that no other worker or machine trains it at the same time.

        Yields:
            The lock's file descriptor; the lock lasts until it and its copies are closed. None if another process holds
            the lock.
        """
        path = self.path(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f"{path.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            yield lock.fileno()

    def start(self, cell: Cell, lock: int, environment: dict[str, str]) -> CcnProcess:
        """Starts training the cell from the beginning, in a new process.

        Args:
            cell: The cell.
            lock: Descriptor of its lock. The new process inherits it, so a process whose parent died keeps the lock.
            environment: Environment variables of the new process.
        """
        path = self.path(cell)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        words = ["fit", *self._options(cell), *self._run_options(cell)]
        return start_ccn(words, path / "fit.log", environment, lock)

    def finish(self, cell: Cell, code: int, started: float, pruned: bool = False) -> None:
        """Marks the cell as finished after its process has ended, by a file with its options and minutes.

        The file also says whether it was `pruned`, and what was `left_out` of which data, if anything.

        Args:
            cell: The cell.
            code: Exit code of the process.
            started: `time.monotonic()` at the start of the process.
            pruned: Whether the process was ended early because the trial was hopeless.

        Raises:
            CellError: The exit code is not 0, and nobody ended the process.
        """
        path = self.path(cell)
        if code and not pruned:
            lines = (path / "fit.log").read_text(errors="replace").strip().splitlines()
            how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
            raise CellError(f"{path / 'fit.log'}: {how}; its last line: {lines[-1] if lines else '(none)'}")
        minutes = (time.monotonic() - started) / 60
        result = {"options": self._options(cell), "minutes": minutes, "pruned": pruned}
        if cell.left_out:
            result["left_out"] = _left_out(cell)
            mark = self.data(cell.left_out) / FILE
            result["left_out_of"] = json.loads(mark.read_text())["of"] if mark.exists() else None
        partial = path / f"{RESULT}.part"
        partial.write_text(json.dumps(result, indent=1) + "\n")
        partial.rename(path / RESULT)

    def _options(self, cell: Cell) -> list[str]:
        return [*self.shared, "--config", str(self.configs[cell.system]), *cell.options]

    def _run_options(self, cell: Cell) -> list[str]:
        """Options that do not change the result, so that `cell.json` does not record them."""
        path = self.path(cell).absolute()
        data = ("--data.folder", str(self.data(cell.left_out).absolute())) if cell.left_out else ()
        return [
            *data,
            *("--runs", str(path.parent.parent), "--experiment", path.parent.name, "--run_id", path.name),
            *("--trainer.devices", "1", "--trainer.enable_progress_bar", "false", "--wandb", "off"),
            *("--trainer.callbacks+", f"{PageEffectsFile.__module__}.{PageEffectsFile.__name__}"),
            *("--trainer.callbacks.file", str(path / PAGE_EFFECTS)),
            *self._workers(),
        ]

    def _workers(self) -> tuple[str, ...]:
        """On CPUs, cells take all cores already: one that reads its own batches is faster than one beside a worker."""
        named = any(word.partition("=")[0] == WORKERS for word in self.shared)
        return () if named or visible_gpus() else (WORKERS, "0")

    def page_effects(self, cell: Cell) -> dict[str, np.ndarray]:
        """Effects of the test split's pages on a finished cell's metrics, float64 [pages] each; see `page_effects`.

        And the rows of their users, int64 [pages] as `USER`, if the cell has them. Empty if the cell has no effects: it
        was trained by an earlier version.
        """
        try:
            with np.load(self.path(cell) / PAGE_EFFECTS) as file:
                return {name: file[name].astype(np.int64 if name == USER else np.float64) for name in file.files}
        except FileNotFoundError:
            return {}


def _left_out(cell: Cell) -> dict[str, int] | None:
    return {cell.left_out.column: cell.left_out.value} if cell.left_out else None
