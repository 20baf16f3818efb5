"""Writes a world's page views as a dataset folder; the command `ccn data world`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lightning_ccn.data import schema as names
from lightning_ccn.data.schema import SPLITS
from lightning_ccn.data.world.knobs import FILE, WorldConfig
from lightning_ccn.data.world.windows import windows
from lightning_ccn.data.world.world import Visits, World
from lightning_ccn.data.writer import DatasetWriter, Ragged

BEHAVIOURS_AT_ONCE = 1 << 17  # bounds memory, and keeps the arrays of a chunk near the cache
BINS = 1 << 16


class _Ranking:
    """AUC of probabilities, streaming: counts by probability in equal bins, ties half; exact to about 1e-5."""

    def __init__(self) -> None:
        self.counts = np.zeros((2, BINS), np.int64)  # unclicked, clicked

    def add(self, probability: np.ndarray, click: np.ndarray) -> None:
        bins = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
        for label in (0, 1):
            self.counts[label] += np.bincount(bins[click == label], minlength=BINS)

    def auc(self) -> float:
        """Nan where all labels are equal."""
        unclicked, clicked = self.counts
        below = np.cumsum(unclicked) - unclicked / 2
        pairs = float(unclicked.sum()) * float(clicked.sum())
        return float((below * clicked).sum() / pairs) if pairs else float("nan")


@dataclass(frozen=True)
class Summary:
    """What was written.

    Attributes:
        pages: page views, by split.
        items: exposed items, by split.
        click_rate: clicks per exposed item, by split.
        oracle_auc: of the true probabilities, on test items.
        attainable_auc: of the probabilities with hidden intent and page clickiness integrated out.
    """

    pages: dict[str, int]
    items: dict[str, int]
    click_rate: dict[str, float]
    oracle_auc: float
    attainable_auc: float


def generate(config: WorldConfig, folder: str | Path, *, chunk: int | None = None, progress: bool = False) -> Summary:
    """Writes train, validation and test page views of a world.

    Args:
        config: the knobs.
        folder: must not hold a dataset yet.
        chunk: page views at a time; the folder does not depend on it.
        progress: shows a bar.

    Raises:
        DataError: the folder is not empty.
    """
    chunk = chunk or max(64, BEHAVIOURS_AT_ONCE // config.long_length)
    oracle, attainable = _Ranking(), _Ranking()
    total = config.train_pages + config.validation_pages + config.test_pages
    world = World(config)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with DatasetWriter(folder, world.schema) as writer, Progress(*columns, disable=not progress) as bar:
        task = bar.add_task("page views", total=total)
        for split in SPLITS:
            for visits in chunks(world, split, chunk):
                items = world.exposures(visits, world.page_lengths(visits))
                rows = world.rows(visits, items, truth=split == "test")
                writer.write(split, rows)
                if split == "test":
                    _rank(oracle, rows[names.TRUE_PROBABILITY], rows[names.CLICKS])
                    _rank(attainable, rows[names.ATTAINABLE_PROBABILITY], rows[names.CLICKS])
                bar.advance(task, len(visits.time))
        attributes = {"category": world.catalogue.category, "seller": world.catalogue.seller}
        writer.close(attributes, extra={FILE: config.to_yaml()})
    return Summary(
        pages={split: stats.pages for split, stats in writer.stats.items()},
        items={split: stats.items for split, stats in writer.stats.items()},
        click_rate={split: stats.clicks / stats.items for split, stats in writer.stats.items()},
        oracle_auc=oracle.auc(),
        attainable_auc=attainable.auc(),
    )


def chunks(world: World, split: str, size: int) -> Iterator[Visits]:
    """The visits of a split, in time order, so many at a time."""
    for window in windows(world.config)[split]:
        for first in range(window.first, window.first + window.pages, size):
            number = np.arange(first, min(first + size, window.first + window.pages))
            yield world.visits(window.promotion, number, window.times(number))


def world(folder: str, config: WorldConfig | None = None) -> None:
    """Writes page views of a synthetic promotion world, whose click probabilities are known.

    Args:
        folder: the dataset folder to write; must not hold one yet.
        config: the world's knobs.
    """
    summary = generate(config or WorldConfig(), folder, progress=True)
    for split in SPLITS:
        print(
            f"{split:>10}: {summary.pages[split]:>12,} pages {summary.items[split]:>14,} items"
            f"   click rate {summary.click_rate[split]:.4f}"
        )
    print(f"test AUC of the true probabilities {summary.oracle_auc:.4f} (oracle_auc)")
    print(f"         without the hidden intent and page clickiness {summary.attainable_auc:.4f} (attainable_auc)")
    print(f"written to {folder}; the knobs are in {Path(folder) / FILE}")


def _rank(ranking: _Ranking, probability: np.ndarray | Ragged, click: np.ndarray | Ragged) -> None:
    assert isinstance(probability, Ragged) and isinstance(click, Ragged)
    ranking.add(probability.values, click.values)
