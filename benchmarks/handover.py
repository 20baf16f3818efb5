"""What it costs the training process to get a batch from a worker: three ways in turns, in one process.

python -m benchmarks.handover FOLDER [PAGES ...]    # FOLDER: a dataset; default: 576 and 4680 pages a batch
"""

from __future__ import annotations

import multiprocessing
import pickle
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing  # teaches ForkingPickler to send tensors by the names of files in shared memory

from benchmarks.numbers import Spread
from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.datamodule import PageData
from lightning_ccn.data.reader import CPU
from lightning_ccn.data.workers import message, receive, send
from lightning_ccn.nn.freed_memory import keep_freed_memory
from lightning_ccn.training.quiet import hide_import_noise

ROUNDS, BATCHES = 9, 20
Send = Callable[[PageBatch, Connection], None]
Receive = Callable[[Connection], Any]


def parts(batch: PageBatch) -> tuple[PageBatch, list[Any]]:
    """All but the tensors, and the tensors as arrays."""
    return batch.packed().like, [tensor.numpy() for tensor in batch.tensors()]


def whole(like: PageBatch, arrays: list[Any]) -> PageBatch:
    """The batch of its parts."""
    return like.with_tensors([torch.from_numpy(array) for array in arrays])


WAYS: dict[str, tuple[Send, Receive]] = {
    "in one buffer": (
        lambda batch, pipe: send(message(batch.packed()), pipe),
        lambda pipe: receive(pipe).to(CPU),
    ),
    "pickled": (
        lambda batch, pipe: pipe.send_bytes(pickle.dumps(parts(batch))),
        lambda pipe: whole(*pickle.loads(pipe.recv_bytes())),
    ),
    "in shared memory": (
        lambda batch, pipe: pipe.send_bytes(ForkingPickler.dumps(batch)),
        lambda pipe: pickle.loads(pipe.recv_bytes()),
    ),
}


def milliseconds(batch: PageBatch, way: str) -> float:
    """CPU time of the receiving process for a batch."""
    give, take = WAYS[way]
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    done, tell = context.Pipe(duplex=False)

    def work() -> None:
        for _ in range(BATCHES + 1):
            give(batch, theirs)
        done.poll(None)  # shared memory is kept until it is there

    worker = context.Process(target=work)
    worker.start()
    take(ours)
    start = time.process_time()
    for _ in range(BATCHES):
        take(ours)
    spent = (time.process_time() - start) / BATCHES * 1e3
    tell.send(None)
    worker.join()
    return spent


def compare(folder: Path, pages: int) -> list[str]:
    """A line for each way: milliseconds, and how many times ours that is."""
    data = PageData(folder, batch_pages=pages, workers=0)
    batch = next(iter(data.train_dataloader()))
    turns = [[milliseconds(batch, way) for way in WAYS] for _ in range(ROUNDS)]
    spreads = dict(zip(WAYS, (Spread(tuple(of)) for of in zip(*turns, strict=True)), strict=True))
    size = sum(tensor.nbytes for tensor in batch.tensors()) / 2**20
    sent = batch.packed().tensors.buffer.nbytes / 2**20
    lines = [f"{batch.items:,} items, {size:.2f} MiB of tensors, {sent:.2f} MiB in one buffer"]
    for way, spread in spreads.items():
        times = spread.over(spreads["in one buffer"])
        lines.append(f"  {way}: {spread.median:.2f} ms, {times.median:.2f} ({times.low:.2f} to {times.high:.2f}) times")
    return lines


def main() -> None:
    """Prints a paragraph per size."""
    hide_import_noise()
    keep_freed_memory()
    torch.set_num_threads(1)
    folder, *pages = sys.argv[1:]
    for of_batch in map(int, pages or ["576", "4680"]):
        print("\n".join(compare(Path(folder), of_batch)))


if __name__ == "__main__":
    main()
