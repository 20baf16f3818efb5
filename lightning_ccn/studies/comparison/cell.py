"""Training one cell of a comparison: `ccn fit` in a process of its own, once, whoever else is at work."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_ccn.errors import CellError, DataError
from lightning_ccn.studies.comparison.protocol import Cell

RESULT = "cell.json"  # of a cell's folder; written last
OF_A_JOB = ("SLURM_", "CCN_", "TORCHELASTIC_", "MASTER_", "RANK", "LOCAL_", "GROUP_", "NODE_RANK", "WORLD_SIZE")


class Cells:
    """The cells of a comparison as folders.

    Args:
        folder: of them all.
        shared: options of `ccn fit` for every cell, before its own.
        configs: YAML file of each system, after the others.
    """

    def __init__(self, folder: Path, shared: Sequence[str], configs: dict[str, Path]) -> None:
        self.folder, self.shared, self.configs = folder, shared, configs

    def path(self, cell: Cell) -> Path:
        """A run folder of `ccn fit`."""
        return self.folder / cell.system / cell.id

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """What the finished cell left, with its `minutes`; None if it has not finished.

        Raises:
            DataError: the folder holds a cell that was trained with other options.
        """
        file = self.path(cell) / RESULT
        if not file.exists():
            return None
        result: dict[str, Any] = json.loads(file.read_text())
        here, there = self._options(cell), result["options"]
        if there != here:
            differences = sorted(set(here) ^ set(there)) or ["their order"]
            raise DataError(
                f"{file}: this cell was trained with other options ({', '.join(differences)}): "
                "give the comparison another --output, or delete that folder"
            )
        return result

    @contextmanager
    def claim(self, cell: Cell) -> Iterator[int | None]:
        """A descriptor that keeps others from the cell until it and its copies are closed; None if others are at it."""
        path = self.path(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f"{path.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            yield lock.fileno()

    def start(self, cell: Cell, lock: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """Trains the cell from nothing. The process holds the claim too, so an orphan keeps its cell."""
        path = self.path(cell)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        with (path / "fit.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "lightning_ccn.cli", "fit", *self._options(cell), *self._place(cell)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=[lock],
            )

    def finish(self, cell: Cell, code: int, started: float) -> None:
        """Writes the result of a process that ended.

        Args:
            cell: that it trained.
            code: of its exit.
            started: `time.monotonic()` when it did.

        Raises:
            CellError: the code is not 0.
        """
        path = self.path(cell)
        if code:
            said = (path / "fit.log").read_text(errors="replace").strip().splitlines()
            how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
            raise CellError(f"{path / 'fit.log'}: {how}; its last line: {said[-1] if said else '(none)'}")
        result = {"options": self._options(cell), "minutes": (time.monotonic() - started) / 60}
        partial = path / f"{RESULT}.part"
        partial.write_text(json.dumps(result, indent=1) + "\n")
        partial.rename(path / RESULT)

    def _options(self, cell: Cell) -> list[str]:
        return [*self.shared, "--config", str(self.configs[cell.system]), *cell.options]

    def _place(self, cell: Cell) -> list[str]:
        path = self.path(cell).absolute()
        return [
            *("--runs", str(path.parent.parent), "--experiment", path.parent.name, "--run_id", path.name),
            *("--trainer.devices", "1", "--trainer.enable_progress_bar", "false", "--wandb", "off"),
        ]


def environment(worker: int) -> dict[str, str]:
    """Of a cell's process: one thread, so that its numbers do not depend on how many train beside it; its own GPU.

    A cell is a single rank: what SLURM or torchrun say of the process that starts it would only confuse it.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OF_A_JOB)}
    gpus = visible_gpus()
    if gpus:
        kept["CUDA_VISIBLE_DEVICES"] = gpus[worker % len(gpus)]
    return {**kept, "OMP_NUM_THREADS": "1"}


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use."""
    import torch

    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    return [str(number) for number in range(torch.cuda.device_count())]
