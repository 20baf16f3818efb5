"""What torch.compile does to a step on a CPU, beside the same step without it, in turns in one process.

python -m benchmarks.compiled [SYSTEM ...]    # default: din sim ccn; compiling takes a minute or two for each
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.bare import copies, loss_of
from benchmarks.entrants import batch_pages
from benchmarks.numbers import Spread
from benchmarks.pages import Shape, write
from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.datamodule import PageData
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.models import CCN, DIN, SIM
from lightning_ccn.models.system import Prediction, System
from lightning_ccn.nn.freed_memory import keep_freed_memory
from lightning_ccn.training.quiet import hide_import_noise

SYSTEMS: dict[str, Callable[..., System]] = {"din": DIN, "sim": SIM, "ccn": CCN}
BATCHES, ROUNDS, STEPS, HIDDEN = 8, 12, 4, [200, 80]
Forward = Callable[[PageBatch], Prediction]


def milliseconds(system: System, forward: Forward, batches: Sequence[PageBatch]) -> float:
    """CPU time of a forward and a backward pass, the mean over the batches; nothing is updated."""
    start = time.process_time()
    for batch in batches:
        system.zero_grad()
        loss_of(system, forward(batch), batch).backward()
    return (time.process_time() - start) / len(batches) * 1e3


def compare(name: str, folder: Path, shape: Shape) -> str:
    """A line about a system: milliseconds as it is and compiled, and how many times as long that is."""
    torch.manual_seed(0)
    system = SYSTEMS[name](Dataset.open(folder), hidden=HIDDEN)
    data = PageData(
        folder, batch_pages=batch_pages(shape), short_length=shape.short, long_length=shape.found, workers=0
    )
    kept = list(data.train_dataloader())
    forwards: list[Forward] = [system.forward, torch.compile(system.forward, dynamic=True)]
    for forward in forwards:
        milliseconds(system, forward, copies(kept, BATCHES))  # compiles, for all sizes that there are
    turns = [[milliseconds(system, forward, copies(kept, STEPS)) for forward in forwards] for _ in range(ROUNDS)]
    plain, compiled = (Spread(tuple(of)) for of in zip(*turns, strict=True))
    times = compiled.over(plain)
    return (
        f"{name}: {plain.median:.1f} ms, compiled {compiled.median:.1f} ms, "
        f"{times.median:.2f} ({times.low:.2f} to {times.high:.2f}) times"
    )


def main() -> None:
    """Prints a row for each system."""
    hide_import_noise()
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        shape = Shape(pages=BATCHES * batch_pages(Shape(pages=0)))
        write(Path(folder) / "pages", shape)
        for name in sys.argv[1:] or SYSTEMS:
            print(compare(name, Path(folder) / "pages", shape), flush=True)


if __name__ == "__main__":
    main()
