"""Visits of a world that no log contains, with candidates to rank; and what becomes of what they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.page_row import CLICKS, ITEMS, POSITIONS, PURCHASES
from lightning_ccn.data.parquet import decode, open_part
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.world import Visits, World
from lightning_ccn.data.world.windows import Window, windows
from lightning_ccn.data.writer import PAGES_PER_ROW_GROUP, DatasetWriter, write_stats
from lightning_ccn.errors import DataError

CHUNK = PAGES_PER_ROW_GROUP  # visits at a time: the row group of the folder, and the batch that is scored
MOST_CANDIDATES = 2_000  # so that a chunk's scores are one row group: Parquet's writer cuts them at 2^20 rows
PAGE_NUMBERS = 2**32  # of one promotion, see `Entrance.visits`
COUNTS = ("users", "visits", "clicks", "clicking_visits", "orders", "buying_visits")


class Traffic:
    """Fresh visits of the promotion that the test split comes from, over the same days.

    The world's own recommender retrieves the candidates of each visit; a page shows as many of them as it would show
    by itself. Everything follows from the world and the arguments: whoever ranks, the visits, their candidates and the
    luck of each (visit, item) are the same.

    Args:
        world: the world.
        visits: how many.
        candidates: of each visit; distinct, the trigger not among them.
        seed: two seeds (of as many visits) have no visit in common.

    Attributes:
        window: the visits' numbers and days; numbers behind those of the log, so page ids are new.

    Raises:
        DataError: an argument is out of range, or the visits are of a single user.
    """

    def __init__(self, world: World, *, visits: int, candidates: int, seed: int) -> None:
        config, self.world, self.candidates = world.config, world, candidates
        if visits < 1 or seed < 0:
            raise DataError(f"simulate: visits is {visits} and seed {seed}; choose visits from 1 and seeds from 0")
        most = min(config.items // 4, MOST_CANDIDATES)
        if not config.page_max <= candidates <= most:
            raise DataError(
                f"simulate: candidates is {candidates}; choose from {config.page_max}, the longest page of this world, "
                f"to {most:,}, a quarter of its items or {MOST_CANDIDATES:,}"
            )
        splits = windows(config)
        test = splits["test"][-1]
        log = [window for split in splits.values() for window in split if window.promotion == test.promotion]
        first = max(window.first + window.pages for window in log) + seed * visits
        if first + visits > PAGE_NUMBERS:
            raise DataError(
                f"simulate: seed {seed} of {visits:,} visits is beyond the promotion's page numbers: lower it"
            )
        self.window = Window(test.promotion, first, visits, test.start, test.end)
        if len(self.users) < 2:
            raise DataError(
                f"simulate: all of {visits} visits are of one user, so nothing can be compared; raise visits"
            )

    @cached_property
    def users(self) -> np.ndarray:
        """int64, sorted: who comes."""
        return np.unique(np.concatenate([visits.users.user for visits in self._visits()]))

    def write(self, folder: Path, log: Dataset) -> None:
        """Writes visits and candidates as the test split of a dataset folder, without clicks.

        Args:
            folder: must not hold a dataset yet.
            log: what the systems were trained on; they also need its counts (Eq. 9).
        """
        with DatasetWriter(folder, self.world.schema) as writer:
            for visits in self._visits():
                lengths = np.full(len(visits.time), self.candidates)
                rows = self.world.rows(visits, self.world.recommender.exposures(visits, lengths))
                nobody_saw = (CLICKS, PURCHASES, POSITIONS)
                writer.write("test", {name: rows[name] for name in rows if name not in nobody_saw})
            catalogue = self.world.catalogue
            writer.close({"category": catalogue.category, "seller": catalogue.seller})
        write_stats(folder, {**log.splits, "test": writer.stats["test"]}, log.numbers, log.digests)

    def chunks(self, folder: Path) -> Iterator[tuple[Visits, Ragged]]:
        """(visits, their candidates in the recommender's order), as `write` left them in `folder`."""
        visits = self._visits()
        for path in Dataset.open(folder).parts("test"):
            with open_part(path) as file:
                for group in range(file.num_row_groups):
                    candidates = decode(file, group, [ITEMS])[ITEMS]
                    assert isinstance(candidates, Ragged), "a list column"
                    yield next(visits), candidates

    def serve(self, folder: Path, scores: Iterable[np.ndarray]) -> np.ndarray:
        """Shows each visit its best candidates, best first, and lets the world draw clicks and purchases.

        Args:
            folder: that `write` wrote.
            scores: for each of `chunks`, float [its candidates].

        Returns:
            float64 [users, 6], `COUNTS` by user: 1; visits; clicks; visits with a click; purchases; visits with one.
        """
        counts = np.zeros((len(self.users), len(COUNTS)))
        counts[:, 0] = 1
        for (visits, candidates), score in zip(self.chunks(folder), scores, strict=True):
            shown = best(score, candidates, self.world.recommender.page_lengths(visits))
            page = np.repeat(np.arange(len(shown.lengths)), shown.lengths)
            clicks, orders = (
                np.bincount(page, outcome, len(shown.lengths)) for outcome in self.world.outcomes(visits, shown)
            )
            rows = np.stack([np.ones_like(clicks), clicks, clicks > 0, orders, orders > 0], axis=1)
            np.add.at(counts[:, 1:], np.searchsorted(self.users, visits.users.user), rows)
        return counts

    def _visits(self) -> Iterator[Visits]:
        past = self.window.first + self.window.pages
        for first in range(self.window.first, past, CHUNK):
            number = np.arange(first, min(first + CHUNK, past))
            yield self.world.entrance.visits(self.window.promotion, number, self.window.times(number))


def best(scores: np.ndarray, candidates: Ragged, lengths: np.ndarray) -> Ragged:
    """The best candidates of each page, best first; equal scores stay in their order.

    Args:
        scores: float [candidates of all pages].
        candidates: of each page.
        lengths: int64 [pages], how many to take.

    >>> pages = Ragged(np.array([7, 8, 9, 5, 6]), np.array([0, 3, 5]))
    >>> best(np.array([0.1, 0.3, 0.2, 0.5, 0.5]), pages, np.array([2, 1])).values.tolist()
    [8, 9, 5]
    """
    page = np.repeat(np.arange(len(lengths)), candidates.lengths)
    order = np.lexsort((-scores, page))
    place = np.arange(len(order)) - candidates.offsets[page]
    return Ragged.from_lengths(candidates.values[order[place < lengths[page]]], lengths)
