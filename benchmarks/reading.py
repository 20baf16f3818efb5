"""The reader as a contestant: from Parquet to `PageBatch`es, in this process.

python -m benchmarks.reading PIPE CLOCK THREADS FOLDER BATCH_PAGES SHORT_LENGTH LONG_LENGTH
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from benchmarks.turns import Turns
from lightning_ccn.data.datamodule import PageData
from lightning_ccn.training.quiet import hide_import_noise


def main() -> None:
    """Reads an epoch a turn, anew from the files."""
    hide_import_noise()
    pipe, clock, threads, folder, *numbers = sys.argv[1:]
    torch.set_num_threads(int(threads))
    batch_pages, short_length, long_length = map(int, numbers)
    data = PageData(
        Path(folder), batch_pages=batch_pages, short_length=short_length, long_length=long_length, workers=0
    )
    turns = Turns(int(pipe), clock)  # type: ignore[arg-type]
    sum(batch.items for batch in data.train_dataloader())  # warms up
    for _ in turns.ready(threads=torch.get_num_threads()):
        loader = data.train_dataloader()
        start = turns.now()
        items = sum(batch.items for batch in loader)
        turns.answer(seconds=turns.now() - start, items=items, steps=len(loader))


if __name__ == "__main__":
    main()
