"""A callback of the tests: what a user or a system does to a run from outside, at a chosen moment."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import Any

import lightning as L


class Interrupter(L.Callback):
    """Presses Ctrl-C, or kills a data worker.

    Args:
        hook: Name of the hook in which to do it, e.g. `on_train_batch_end`.
        call: The number of the hook's call, from 1.
        times: How often to press Ctrl-C.
        group: Whether Ctrl-C reaches all processes of the group, as in a terminal, or this process alone.
        worker: Kill a data worker of this rank instead.
        rank: The rank that does it.
    """

    def __init__(
        self, hook: str, call: int = 1, times: int = 1, group: bool = False, worker: bool = False, rank: int = 0
    ) -> None:
        self.left, self.times, self.group, self.worker, self.rank = call, times, group, worker, rank
        setattr(self, hook, self._count)

    def _count(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        self.left -= 1
        if self.left or trainer.global_rank != self.rank:
            return
        if self.worker:
            multiprocessing.active_children()[0].kill()
            return
        for _press in range(self.times):
            os.kill(0 if self.group else os.getpid(), signal.SIGINT)
