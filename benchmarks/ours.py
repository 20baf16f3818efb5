"""One of our systems as a contestant: `ccn fit`, whose training batches come in turns.

The whole of `ccn fit` runs as for a user: command line, Lightning, `TorchRecStrategy`, metrics, logging. Only its
training loader is replaced, by one that asks for the next turn before it hands out a turn's first batch. It reads the
dataset, or hands out batches that it has kept. Between two Lightning steps it can run a bare loop over the same model,
or take the step apart.

python -m benchmarks.ours PIPE CLOCK THREADS fit OPTIONS
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any, cast

import lightning as L
import torch

from benchmarks import bare
from benchmarks.breakdown import dense_work, parts_of
from benchmarks.turns import ClockName, Turns
from lightning_ccn.cli import main as ccn
from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.datamodule import PageData
from lightning_ccn.models.system import System
from lightning_ccn.module import CTRModule

KEPT = 8  # batches that stay in memory
ENDLESS = 10**6  # steps: the benchmark ends the training


class InTurns(L.Callback):
    """Makes the training loader one that comes in turns."""

    def __init__(self, pipe: int, clock: ClockName) -> None:
        self._turns = Turns(pipe, clock)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Puts `Feed` in the place of the training loader."""
        data = cast(PageData, trainer.datamodule)  # type: ignore[attr-defined]
        feed = Feed(trainer, cast(CTRModule, pl_module), data, self._turns)
        data.train_dataloader = lambda: feed  # type: ignore[method-assign, assignment, return-value]


class Feed:
    """The training batches of all turns.

    Args:
        trainer: The Trainer of the fit.
        module: The module that it trains.
        data: The dataset.
        turns: Asks for turns.
    """

    def __init__(self, trainer: L.Trainer, module: CTRModule, data: PageData, turns: Turns) -> None:
        self._trainer, self._module, self._turns = trainer, module, turns
        self._new_epoch = data.train_dataloader  # the method before it was replaced
        self._kept: list[PageBatch] = []

    def __len__(self) -> int:
        return ENDLESS

    def __iter__(self) -> Iterator[PageBatch]:
        for batch in self._new_epoch():
            self._kept.append(batch)
            if len(self._kept) == KEPT:
                break
        yield from bare.copies(self._kept, KEPT)  # the first steps, which allocate and warm up
        for word, arguments in self._turns.ready(**self._facts()):
            if word == "epoch":
                yield from self._read_epoch()
            elif word == "kept":
                yield from self._hand_out(arguments["steps"])
            else:
                self._turns.answer(**getattr(self, f"_{word}")(**arguments))
        os._exit(0)  # the end of the contest, not of a training

    def _read_epoch(self) -> Iterator[PageBatch]:
        """A turn end to end: one epoch of the dataset, whose row groups are decoded anew."""
        loader = self._new_epoch()
        items, reading, start = 0, 0.0, self._turns.now()
        batches = iter(loader)
        while True:
            since = self._turns.now()
            batch = next(batches, None)
            reading += self._turns.now() - since
            if batch is None:
                break
            items += batch.items
            yield batch
        seconds = self._turns.now() - start
        self._turns.answer(seconds=seconds, items=items, steps=len(loader), reading=reading)

    def _hand_out(self, steps: int) -> Iterator[PageBatch]:
        """A turn without the reader."""
        batches = bare.copies(self._kept, steps)
        start = self._turns.now()
        yield from batches
        seconds = self._turns.now() - start
        self._turns.answer(seconds=seconds, items=sum(batch.items for batch in batches), steps=steps)

    def _bare(self, steps: int) -> dict[str, Any]:
        """A turn of a bare loop."""
        batches = bare.copies(self._kept, steps)
        start = self._turns.now()
        bare.steps(self._system, self._trainer.optimizers[0], batches)
        seconds = self._turns.now() - start
        return {"seconds": seconds, "items": sum(batch.items for batch in batches), "steps": steps}

    def _parts(self, steps: int) -> dict[str, Any]:
        """Seconds of each part of a bare step."""
        batches = bare.copies(self._kept, steps)
        return {"parts": parts_of(self._system, self._trainer.optimizers[0], batches, self._turns.now)}

    def _work(self) -> dict[str, Any]:
        """FLOPs and bytes of a bare step."""
        return {"work": dense_work(self._system, bare.copies(self._kept, 1)[0])}

    @property
    def _system(self) -> System:
        assert self._module.model is not None
        return self._module.model

    def _facts(self) -> dict[str, Any]:
        batch = self._kept[0]
        names = {name: p.numel() for name, p in self._module.named_parameters() if p.requires_grad}
        return {
            "threads": torch.get_num_threads(),
            "items_of_batch": batch.items,
            "distinct_items": batch.item.stride(),
            "feed_mib": sum(t.nbytes for kept in self._kept for t in kept.tensors()) / 2**20,
            "parameters": sum(names.values()),
        }


def main() -> int:
    """Runs `ccn fit` in turns."""
    pipe, clock, threads, *arguments = sys.argv[1:]
    torch.set_num_threads(int(threads))
    callback = ["--trainer.callbacks+", "benchmarks.ours.InTurns"]
    callback += ["--trainer.callbacks.pipe", pipe, "--trainer.callbacks.clock", clock]
    return ccn([*arguments, *callback])


if __name__ == "__main__":
    sys.exit(main())
