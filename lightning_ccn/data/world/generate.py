"""Writes a world's page views as a dataset folder; the command `ccn data world`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lightning_ccn.data.dataset import SPLITS, Dataset
from lightning_ccn.data.world.knobs import FILE, WorldConfig
from lightning_ccn.data.world.visits import Visits
from lightning_ccn.data.world.windows import windows
from lightning_ccn.data.world.world import World
from lightning_ccn.data.writer import DatasetWriter

BEHAVIOURS_AT_ONCE = 1 << 17  # bounds memory, and keeps a chunk's arrays near the cache


def generate(config: WorldConfig, folder: str | Path, *, chunk: int | None = None, progress: bool = False) -> Path:
    """Writes train, validation and test page views of a world, streaming.

    Args:
        config: the knobs.
        folder: must not hold a dataset yet.
        chunk: page views at a time; the folder does not depend on it.
        progress: shows a bar.

    Raises:
        DataError: the folder is not empty.
    """
    chunk = chunk or max(64, BEHAVIOURS_AT_ONCE // config.long_length)
    total = config.train_pages + config.validation_pages + config.test_pages
    world = World(config)
    look = (TextColumn("page views"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with DatasetWriter(folder, world.schema) as writer, Progress(*look, disable=not progress) as bar:
        task = bar.add_task("page views", total=total)
        for split in SPLITS:
            for visits in split_visits(world, split, chunk):
                items = world.recommender.exposures(visits, world.recommender.page_lengths(visits))
                writer.write(split, world.rows(visits, items, truth=split == "test"))
                bar.advance(task, len(visits.time))
        attributes = {"category": world.catalogue.category, "seller": world.catalogue.seller}
        return writer.close(attributes, extra={FILE: config.to_yaml()})


def split_visits(world: World, split: str, chunk: int) -> Iterator[Visits]:
    """The visits of a split in time order, at most `chunk` at a time and of one promotion each time."""
    for window in windows(world.config)[split]:
        past = window.first + window.pages
        for first in range(window.first, past, chunk):
            number = np.arange(first, min(first + chunk, past))
            yield world.entrance.visits(window.promotion, number, window.times(number))


def generate_world(folder: Path, **knobs: Any) -> None:
    """Write page views of a synthetic promotion world, whose click probabilities are known.

    Args:
        folder: the dataset folder to write; must not hold one yet.
        knobs: of `WorldConfig`.
    """
    config = WorldConfig(**knobs)
    generate(config, folder, progress=True)
    for split, stats in Dataset.open(folder).splits.items():
        rate = stats.clicks / stats.items
        print(f"{split:>10} {stats.pages:>13,} pages {stats.items:>15,} items   click rate {rate:.4f}")
    print(f"{folder} holds them, and the knobs in {FILE}")
