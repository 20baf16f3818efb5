"""Saving checkpoints in the foreground or background; no checkpoint is removed before its successor is complete."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lightning_ccn.sharding import checkpoint
from lightning_ccn.sharding.errors import ShardingError, disk_words
from lightning_ccn.sharding.plain_values import encode, plain
from lightning_ccn.sharding.sharded_rows import ShardedRows, copy_to_host

OnFailedSave = Literal["raise", "warn"]


class Saver:
    """Saves and removes checkpoints for one strategy, with its own gloo group.

    In the background, `save` returns as soon as this rank's values are copied to main memory, where the copy stays
    until it is written. The next `save` or `wait` reports a failure.

    Attributes:
        paused: Seconds for which the last `save` paused training.
        wrote: Seconds that the last successful save took from start to end.
    """

    def __init__(
        self, group: dist.ProcessGroup, background: bool, on_failed_save: OnFailedSave, device: torch.device
    ) -> None:
        self.group = group
        self.device = device
        self.background = background
        self.on_failed_save = on_failed_save
        self.paused = self.wrote = 0.0
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._failed = False
        self._to_remove: list[Path] = []

    def save(self, path: Path, state: dict[str, Any], trainer_state: Any, about: dict[str, Any]) -> None:
        """Write a checkpoint, see `checkpoint.save` for the arguments. Every rank must call it.

        Raises:
            ShardingError: The checkpoint (in the background: the one before it) was not written, and
                `on_failed_save` is `raise`; or the state holds something that is not plain, which no later save mends.
        """
        started = time.monotonic()
        self.wait()
        state, content = self._plain(state, trainer_state)
        if self.background:
            state = {key: _copy(value) for key, value in state.items()}

        def write() -> None:
            try:
                if self.background and self.device.type == "cuda":
                    # CUDA's device is that of a thread, at first GPU 0, where each rank's first call, such as
                    # DCP's search for the accelerator, would otherwise make a context of some 500 MB
                    torch.cuda.set_device(self.device)
                checkpoint.save(path, state, content, about, self.group)
                self.wrote = time.monotonic() - started
                for old in self._to_remove:
                    if old != path:
                        _remove(old)
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
        """Remove a checkpoint (on rank 0) when the current save has succeeded; keep it if that save fails.

        Raises:
            ShardingError: The path climbs with `..`, as only the state of a checkpoint made by hand can ask for.
        """
        if ".." in path.parts:
            raise ShardingError(f"{path} is not removed: no checkpoint is saved under a path with '..'")
        if dist.get_rank(self.group) != 0:
            return
        if self._thread is not None or self._failed:
            self._to_remove.append(path)
        else:
            _remove(path)

    def _plain(self, state: dict[str, Any], trainer_state: Any) -> tuple[dict[str, Any], bytes]:
        """`state` with plain values in the place of what is no tensor, and `trainer.pt` (on rank 0).

        Raises:
            ShardingError: Something is not plain on some rank; raised on every rank.
        """
        content, problem = b"", None
        try:
            state = {
                key: value if isinstance(value, ShardedRows | Tensor) else plain(value, key)
                for key, value in state.items()
            }
            if dist.get_rank(self.group) == 0:
                content = encode(trainer_state)
        except ShardingError as error:
            problem = str(error)
        problems: list[str | None] = [None] * dist.get_world_size(self.group)
        dist.all_gather_object(problems, problem, group=self.group)
        if found := next(filter(None, problems), None):
            raise ShardingError(found)
        return state, content

    def wait(self) -> None:
        """Wait until a save in the background has finished.

        Raises:
            ShardingError: The checkpoint was not written, and `on_failed_save` is `raise`.
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
        rank_zero_warn(f"{error}; training continues")


def _remove(path: Path) -> None:
    try:
        checkpoint.remove(path)
    except OSError as error:
        rank_zero_warn(f"the older checkpoint {path} cannot be removed: {disk_words(error)}; training continues")


def _copy(value: Any) -> Any:
    if isinstance(value, ShardedRows):
        return value.clone()
    return copy_to_host(value) if isinstance(value, Tensor) else value
