"""Measures training steps: `python -m tests.gpu.measure WORLD`.

The batches are on the host already; with `--workers N`, so many processes read them from the world's files, epoch after
epoch. It prints one line of JSON for each batch size: items a second, waits a step and who asked for them, the share of
the time in which the GPU is busy, the share of that in table kernels, the slowest kernels, and the peak of its memory
beside the plan's bytes. `--accelerator cpu` is a rehearsal.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import lightning as L
import torch
from torch.profiler import ProfilerActivity, profile

from lightning_ccn import models
from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.datamodule import PageData
from lightning_ccn.data.reader import PageLoader
from lightning_ccn.module import CTRModule
from lightning_ccn.sharding import TorchRecStrategy
from tests.gpu.bare_trainer import bare_trainer
from tests.gpu.waits import asked_by

WARM_UP, STEPS, TRACED = 20, 20, 3
LAST = WARM_UP + 3 * STEPS
TABLES = ("embedding", "bounds_check", "linearize", "fbgemm", "grad_sum")  # parts of the names of table kernels
MIB = 2**20


class Kept:
    """In place of `PageLoader`'s reading: two batches again and again, so that no reader is measured."""

    def __init__(self, loader: PageLoader) -> None:
        self.batches = [loader.batches[0, step] for step in range(min(2, len(loader)))]

    def __call__(self, steps: Any) -> Iterator[PageBatch]:
        return islice(cycle(self.batches), LAST + TRACED)


class Waits:
    """Counts the calls that make the host wait for the GPU, as torch tells of them, by who asked."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()

    def __enter__(self) -> None:
        self._kept = warnings.catch_warnings()
        self._kept.__enter__()
        warnings.simplefilter("always")
        warnings.showwarning = self._count
        torch.cuda.set_sync_debug_mode("warn")

    def __exit__(self, *_: object) -> None:
        torch.cuda.set_sync_debug_mode("default")
        self._kept.__exit__(None, None, None)

    def _count(self, message: Warning | str, *_: Any, **__: Any) -> None:
        if "synchronizing" in str(message):
            self.found[" ".join(asked_by())] += 1


class Measured(L.Callback):
    """Measures `STEPS` steps for the time, as many for waits, as many for kernels, and traces `TRACED` more.

    Args:
        trace: File for the trace, which chrome://tracing shows; None for none.

    Attributes:
        found: The figures.
    """

    def __init__(self, trace: Path | None) -> None:
        self.trace = trace
        self.found: dict[str, Any] = {}
        self._items = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: PageBatch, batch_idx: int
    ) -> None:
        """Begins a measurement."""
        on_gpu, step = pl_module.device.type == "cuda", trainer.global_step
        if on_gpu and step >= WARM_UP and (step - WARM_UP) % STEPS == 0:
            torch.cuda.synchronize()
        if step == WARM_UP:
            self._since = time.perf_counter()
        if on_gpu and step == WARM_UP + STEPS:
            self._waits = Waits()
            self._waits.__enter__()
        if on_gpu and step == WARM_UP + 2 * STEPS:
            self._profile = profile(activities=[ProfilerActivity.CUDA])
            self._profile.start()
            self._since = time.perf_counter()
        if on_gpu and step == LAST and self.trace:
            self._profile = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
            self._profile.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: PageBatch, batch_idx: int
    ) -> None:
        """Ends a measurement."""
        on_gpu, step = pl_module.device.type == "cuda", trainer.global_step - 1
        if WARM_UP <= step < WARM_UP + STEPS:
            self._items += batch.items
        if step == WARM_UP + STEPS - 1:
            if on_gpu:
                torch.cuda.synchronize()
            seconds = time.perf_counter() - self._since
            self.found |= {"items_a_step": self._items / STEPS, "items_per_second": self._items / seconds}
            self.found["milliseconds_a_step"] = 1e3 * seconds / STEPS
        if on_gpu and step == WARM_UP + 2 * STEPS - 1:
            self._waits.__exit__()
            self.found["waits_a_step"] = self._waits.found.total() / STEPS
            self.found["waits"] = {place: count / STEPS for place, count in self._waits.found.most_common()}
        if on_gpu and step == LAST - 1:
            torch.cuda.synchronize()
            seconds = time.perf_counter() - self._since
            self._profile.stop()
            self.found |= of_kernels(self._profile, seconds)
            self.found["peak_mib"] = torch.cuda.max_memory_allocated() / MIB
        if on_gpu and step == LAST + TRACED - 1 and self.trace:
            torch.cuda.synchronize()
            self._profile.stop()
            self._profile.export_chrome_trace(str(self.trace))


def of_kernels(found: profile, seconds: float) -> dict[str, Any]:
    """What the GPU did in `seconds` of `STEPS` steps.

    `gpu_busy` is the share of the time in which at least one kernel or copy ran.
    """
    events = [e for e in found.events() if e.device_type.name == "CUDA" and e.time_range.elapsed_us() > 0]
    busy, end = 0.0, 0.0
    for event in sorted(events, key=lambda event: event.time_range.start):
        busy += max(0.0, event.time_range.end - max(end, event.time_range.start))
        end = max(end, event.time_range.end)
    by_name: Counter[str] = Counter()
    for event in events:
        by_name[event.name] += event.time_range.elapsed_us()
    tables = sum(us for name, us in by_name.items() if any(part in name.lower() for part in TABLES))
    return {
        "gpu_busy": busy / 1e6 / seconds,
        "of_that_in_tables": tables / max(by_name.total(), 1e-9),
        "kernels_a_step": len(events) / STEPS,
        "microseconds_a_step": {name[:90]: us / STEPS for name, us in by_name.most_common(20)},
    }


def measure(
    world: Path,
    accelerator: str,
    batch_pages: int,
    system: str = "CCN",
    precision: Any = "32-true",
    compiled: bool = False,
    trace: Path | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """The figures of one batch size; None for `workers`: with batches that are kept."""
    data = PageData(world, batch_pages=batch_pages, workers=workers or 0, lanes=workers or 1)
    strategy, measured = TorchRecStrategy(), Measured(trace)
    module = CTRModule(data.dataset, getattr(models, system), compile_layers=compiled)
    with TemporaryDirectory() as home:
        trainer = bare_trainer(Path(home), strategy, accelerator, 1, LAST + TRACED, measured, precision)
        if workers is not None:
            trainer.fit(module, data)
        else:
            kept = Kept(data_loader(data))
            with (
                patch.object(PageLoader, "_batches", lambda loader, steps: kept(steps)),
                patch.object(PageLoader, "__len__", lambda loader: LAST + TRACED),
            ):
                trainer.fit(module, data)
    device = torch.cuda.get_device_name() if accelerator == "gpu" else "CPU"
    assert strategy.plan is not None and "items_per_second" in measured.found
    about = {"device": device, "torch": torch.__version__, "system": system, "precision": precision}
    about |= {"compiled": compiled, "batch_pages": batch_pages, "workers": workers}
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
    parser.add_argument("--system", default="CCN", help="a class of lightning_ccn.models")
    parser.add_argument("--precision", default="32-true", help="Lightning's, such as bf16-mixed")
    parser.add_argument("--compile", action="store_true", help="with model.compile_layers")
    parser.add_argument("--workers", type=int, help="processes that read; default: none, batches are kept")
    parser.add_argument("--traces", type=Path, help="a folder for traces of a few steps")
    options = parser.parse_args()
    for pages in options.batch_pages:
        name = f"{options.system}-{options.precision}{'-compiled' * options.compile}-{pages}.json"
        trace = options.traces / name if options.traces else None
        settings = (options.system, options.precision, options.compile, trace, options.workers)
        print(json.dumps(measure(options.world, options.accelerator, pages, *settings)), flush=True)
