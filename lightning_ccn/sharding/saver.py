"""Saving in the foreground or behind the training, and removing no checkpoint before its successor is whole."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_ccn.sharding import checkpoint as files
from lightning_ccn.sharding.errors import ShardingError
from lightning_ccn.sharding.sharded_rows import ShardedRows, copy_to_host

OnFailedSave = Literal["raise", "warn"]


class Saver:
    """Saves and removes checkpoints for one strategy, on a gloo group of its own.

    In the background, `save` returns once this rank's values are copied (that much main memory is taken until
    they are written), and a failure shows at the next `save` or `wait`.

    Attributes:
        paused: seconds for which the last `save` held up the training.
        wrote: seconds from the start of the last save that was finished to its end.
    """

    def __init__(self, group: dist.ProcessGroup, background: bool, on_failed_save: OnFailedSave) -> None:
        self.group = group
        self.background = background
        self.on_failed_save = on_failed_save
        self.paused = self.wrote = 0.0
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._failed = False
        self._to_remove: list[Path] = []

    def save(self, path: Path, state: dict[str, Any], trainer_state: Any, about: dict[str, Any]) -> None:
        """Write a checkpoint; every rank calls it.

        Raises:
            ShardingError: it (or the one before it, in the background) was not written, and failures raise.
        """
        started = time.monotonic()
        self.wait()
        if self.background:
            state = {key: _copy(value) for key, value in state.items()}
        buffer = io.BytesIO()
        torch.save(trainer_state, buffer)
        content = buffer.getvalue()

        def write() -> None:
            try:
                files.save(path, state, content, about, self.group)
                self.wrote = time.monotonic() - started
                for old in self._to_remove:
                    if old != path:
                        files.remove(old)
                self._to_remove.clear()
            except Exception as error:
                self._error = error

        if self.background:
            self._thread = threading.Thread(target=write, name=f"save {path.name}")
            self._thread.start()
        else:
            write()
            self._report()
        self.paused = time.monotonic() - started
        rank_zero_info(f"checkpoint {path}: training paused {self.paused:.2f} s")

    def remove(self, path: Path) -> None:
        """Remove a checkpoint (on rank 0) once the save under way is done; keep it if that save fails."""
        if dist.get_rank(self.group) != 0:
            return
        if self._thread is not None or self._failed:
            self._to_remove.append(path)
        else:
            files.remove(path)

    def wait(self) -> None:
        """Let a save in the background finish.

        Raises:
            ShardingError: it was not written, and failures raise.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._report()

    def _report(self) -> None:
        error, self._error = self._error, None
        self._failed = error is not None
        if error is None:
            return
        if self.on_failed_save == "raise" or not isinstance(error, ShardingError):
            raise error
        rank_zero_warn(f"{error}; training goes on")


def _copy(value: Any) -> Any:
    if isinstance(value, ShardedRows):
        return value.clone()
    return copy_to_host(value) if isinstance(value, Tensor) else value
