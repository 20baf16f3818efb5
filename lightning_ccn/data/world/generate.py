"""Writes a world's page views as a dataset folder; the command `ccn data world`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lightning_ccn.data.dataset import SPLITS, Dataset
from lightning_ccn.data.world.knobs import FILE, WorldConfig
from lightning_ccn.data.world.original_ids import original_ids
from lightning_ccn.data.world.visits import Visits
from lightning_ccn.data.world.windows import windows
from lightning_ccn.data.world.world import World
from lightning_ccn.data.writer import DatasetWriter

log = logging.getLogger(__name__)
BEHAVIOURS_AT_ONCE = 1 << 17  # bounds memory; a chunk's arrays about fit the CPU cache


def generate(
    config: WorldConfig,
    folder: str | Path,
    *,
    cut_long_length: int | None = None,
    chunk: int | None = None,
    progress: bool = False,
) -> Path:
    """Writes the page views of a world as a stream.

    Args:
        config: The knobs.
        folder: Dataset folder to write; it must be empty or not exist.
        cut_long_length: Cut the long sequences, as `cut_folder` would; None leaves them whole.
        chunk: Number of page views to generate at a time; it does not affect the result.
        progress: Whether to show a progress bar.

    Returns:
        The dataset folder.

    Raises:
        DataError: The folder is not empty.
    """
    chunk = chunk or max(64, BEHAVIOURS_AT_ONCE // config.long_length)
    total = config.train_pages + config.validation_pages + config.test_pages
    world = World(config)
    if warning := world.scenarios.warning():
        log.warning(warning)
    look = (TextColumn("page views"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    schema = replace(world.schema, cut_long_length=cut_long_length)
    attributes = {"category": world.catalogue.category, "seller": world.catalogue.seller}
    with DatasetWriter(folder, schema, attributes) as writer, Progress(*look, disable=not progress) as bar:
        task = bar.add_task("page views", total=total)
        for split in SPLITS:
            for visits in split_visits(world, split, chunk):
                items = world.recommender.exposures(visits, world.recommender.page_lengths(visits))
                writer.write(split, world.rows(visits, items, truth=split == "test"))
                bar.advance(task, len(visits.time))
        vocabularies = original_ids(config, world.schema)
        return writer.close(attributes, vocabularies, extra={FILE: config.to_yaml()})


def split_visits(world: World, split: str, chunk: int) -> Iterator[Visits]:
    """The visits of a split in time order, in chunks of at most `chunk` page views of one promotion."""
    for window in windows(world.config)[split]:
        past = window.first + window.pages
        for first in range(window.first, past, chunk):
            number = np.arange(first, min(first + chunk, past))
            yield world.entrance.visits(window.promotion, number, window.times(number))


def generate_world(folder: Path, *, cut_long_length: int | None = None, **knobs: Any) -> None:
    """Writes page views of a synthetic promotion world with known click probabilities, and prints their counts.

    Args:
        folder: Dataset folder to write; it must be empty or not exist.
        cut_long_length: Cut the long sequences to what a search for this many or fewer behaviours of each category of a
            page can ask for, as `ccn data cut` does; None leaves them whole. Not a knob: the world is the same.
        knobs: Fields of `WorldConfig`.

    Raises:
        DataError: The folder is not empty, or a knob is out of range.
    """
    config = WorldConfig(**knobs)
    generate(config, folder, cut_long_length=cut_long_length, progress=True)
    for split, stats in Dataset.open(folder).splits.items():
        rate = stats.clicks / stats.items
        print(f"{split:>10} {stats.pages:>13,} pages {stats.items:>15,} items   click rate {rate:.4f}")
    print(f"written to {folder}, with the knobs in {FILE}")
