"""Measures how many page views per minute `ccn data world` writes on one core; prints a line of JSON.

python benchmarks/world.py
python benchmarks/world.py --pages 100000 --users 61585143 --items 19061870 --categories 10000 --sellers 1000000
"""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli

from lightning_ccn.data.world import World, WorldConfig, generate


def main(pages: int = 100_000, **knobs: Any) -> None:
    """Measure `ccn data world`.

    Args:
        pages: Number of page views to write; a tenth are test pages, with their click probabilities.
        knobs: Fields of `WorldConfig`.
    """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core, also for the threads of the Parquet writer
    knobs |= {"train_pages": pages * 8 // 10, "validation_pages": pages // 10, "test_pages": pages // 10}
    config = WorldConfig(**knobs)
    start = time.perf_counter()
    World(config)
    set_up = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        folder = generate(config, Path(scratch) / "world")
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    result = {
        "benchmark": "world",
        "pages": pages,
        "users": config.users,
        "items": config.items,
        "long_length": config.long_length,
        "seconds": round(seconds, 2),
        "of_which_item_table": round(set_up, 2),
        "pages_per_minute": round(60 * pages / seconds),
        "folder_mib": round(size / 2**20, 1),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    auto_cli(main)
