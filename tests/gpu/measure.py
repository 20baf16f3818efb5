"""Measures training steps with batches that are on the host already: `python -m tests.gpu.measure WORLD`.

One line of JSON for each batch size: items a second, waits a step, the share of the time in which the GPU is busy, the
share of that in table kernels, and the peak of its memory beside the plan's bytes. `--accelerator cpu` is a rehearsal.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import lightning as L
import torch
from torch.profiler import ProfilerActivity, profile

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.datamodule import PageData
from lightning_ccn.data.reader import PageLoader
from lightning_ccn.models import CCN
from lightning_ccn.module import CTRModule
from lightning_ccn.sharding import TorchRecStrategy
from tests.gpu.bare_trainer import bare_trainer

WARM_UP, STEPS = 20, 10
TABLES = ("embedding", "bounds_check", "linearize", "fbgemm", "grad_sum")  # parts of the names of table kernels
MIB = 2**20


class Kept:
    """In place of `PageLoader`'s reading: two batches again and again, so that no reader is measured."""

    def __init__(self, loader: PageLoader) -> None:
        self.batches = [loader.batches[0, step] for step in range(min(2, len(loader)))]

    def __call__(self, steps: Any) -> Iterator[PageBatch]:
        return islice(cycle(self.batches), len(steps))


class Measured(L.Callback):
    """Measures steps `WARM_UP` to `WARM_UP + STEPS`: once for the time, then for waits, then for kernels.

    Attributes:
        found: The figures.
    """

    def __init__(self) -> None:
        self.found: dict[str, float | str] = {}
        self._items = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begins a measurement."""
        on_gpu = pl_module.device.type == "cuda"
        if on_gpu and batch_idx in (WARM_UP, WARM_UP + STEPS, WARM_UP + 2 * STEPS):
            torch.cuda.synchronize()
        if batch_idx == WARM_UP:
            self._since = time.perf_counter()
        if on_gpu and batch_idx == WARM_UP + STEPS:
            self._warnings = warnings.catch_warnings(record=True)
            self._waits = self._warnings.__enter__()
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
        if on_gpu and batch_idx == WARM_UP + 2 * STEPS:
            self._profile = profile(activities=[ProfilerActivity.CUDA])
            self._profile.start()
            self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: PageBatch, batch_idx: int
    ) -> None:
        """Ends a measurement."""
        on_gpu = pl_module.device.type == "cuda"
        if WARM_UP <= batch_idx < WARM_UP + STEPS:
            self._items += batch.items
        if batch_idx == WARM_UP + STEPS - 1:
            if on_gpu:
                torch.cuda.synchronize()
            seconds = time.perf_counter() - self._since
            self.found |= {"items_a_step": self._items / STEPS, "items_per_second": self._items / seconds}
            self.found["milliseconds_a_step"] = 1e3 * seconds / STEPS
        if on_gpu and batch_idx == WARM_UP + 2 * STEPS - 1:
            torch.cuda.set_sync_debug_mode("default")
            self._warnings.__exit__(None, None, None)
            self.found["waits_a_step"] = sum("synchronizing" in str(w.message) for w in self._waits) / STEPS
        if on_gpu and batch_idx == WARM_UP + 3 * STEPS - 1:
            torch.cuda.synchronize()
            seconds = time.perf_counter() - self._since
            self._profile.stop()
            kernels = [(e.name.lower(), e.device_time) for e in self._profile.events() if e.device_time > 0]
            busy = sum(microseconds for _, microseconds in kernels)
            tables = sum(microseconds for name, microseconds in kernels if any(part in name for part in TABLES))
            self.found |= {"gpu_busy": busy / 1e6 / seconds, "of_that_in_tables": tables / max(busy, 1e-9)}
            self.found |= {"kernels_a_step": len(kernels) / STEPS, "peak_mib": torch.cuda.max_memory_allocated() / MIB}


def measure(world: Path, accelerator: str, batch_pages: int) -> dict[str, Any]:
    """The figures of one batch size."""
    data = PageData(world, batch_pages=batch_pages, workers=0, lanes=1)
    strategy, measured = TorchRecStrategy(), Measured()
    with TemporaryDirectory() as home:
        trainer = bare_trainer(Path(home), strategy, accelerator, 1, WARM_UP + 3 * STEPS, measured)
        kept = Kept(data_loader(data))
        with (
            patch.object(PageLoader, "_batches", lambda loader, steps: kept(steps)),
            patch.object(PageLoader, "__len__", lambda loader: WARM_UP + 3 * STEPS),
        ):
            trainer.fit(CTRModule(data.dataset, CCN), data)
    device = torch.cuda.get_device_name() if accelerator == "gpu" else "CPU"
    assert strategy.plan is not None
    about = {"device": device, "torch": torch.__version__, "batch_pages": batch_pages}
    return {**about, **measured.found, "plan_mib": max(strategy.plan.rank_bytes()) / MIB}


def data_loader(data: PageData) -> PageLoader:
    """The training loader of one rank, without a Trainer."""
    data.setup("fit")
    return data.train_dataloader()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("world", type=Path)
    parser.add_argument("--accelerator", default="gpu", choices=["gpu", "cpu"])
    parser.add_argument("--batch_pages", type=int, nargs="+", default=[576, 4680])  # about 8k and 65k items
    options = parser.parse_args()
    for pages in options.batch_pages:
        print(json.dumps(measure(options.world, options.accelerator, pages)), flush=True)
