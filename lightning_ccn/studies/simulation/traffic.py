"""New visits of a synthetic world, with candidates to rank, and the clicks and orders on what is shown."""

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

CHUNK = PAGES_PER_ROW_GROUP  # visits per row group of the folder, and per batch that is scored
MOST_CANDIDATES = 2_000  # more would split a chunk's scores: Parquet's writer limits a row group to 2^20 rows
PAGE_NUMBERS = 2**32  # page numbers per promotion, see `Entrance.visits`
COUNTS = (
    *("users", "visits", "clicks", "clicking_visits", "orders", "buying_visits"),
    *("shown", "alike_shown", "alike_clicks"),  # items; alike: of the trigger's category
)


class Traffic:
    """New visits of the test split's promotion, on the same days.

    The world's own recommender retrieves the candidates of each visit. A page shows as many items as in the log. The
    visits, their candidates, and the random draw of each (visit, item) depend only on the world and the arguments, so
    they are the same for all systems.

    Args:
        world: The world.
        visits: Number of visits.
        candidates: Number of candidates per visit; they are distinct, and the trigger is not one of them.
        seed: Seed of the visits. Two seeds with the same number of visits have no visit in common.

    Attributes:
        window: Page numbers and days of the visits; the numbers come after those of the log, so page ids are new.

    Raises:
        DataError: An argument is out of range, or all visits have the same user.
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
                f"simulate: seed {seed} with {visits:,} visits exceeds the page numbers of a promotion; lower the seed"
            )
        self.window = Window(test.promotion, first, visits, test.start, test.end)
        if len(self.users) < 2:
            raise DataError(
                f"simulate: all {visits} visits have the same user, so intervals cannot be computed; choose more visits"
            )

    @cached_property
    def users(self) -> np.ndarray:
        """int64: the ids of the users who visit, sorted."""
        return np.unique(np.concatenate([visits.users.user for visits in self._visits()]))

    def write(self, folder: Path, log: Dataset) -> None:
        """Writes visits and candidates as the test split of a dataset folder, without clicks.

        Args:
            folder: Folder to write; it must not hold a dataset.
            log: The dataset that the systems were trained on; they also need its counts (Eq. 9).
        """
        with DatasetWriter(folder, self.world.schema) as writer:
            for visits in self._visits():
                lengths = np.full(len(visits.time), self.candidates)
                rows = self.world.rows(visits, self.world.recommender.exposures(visits, lengths))
                unknown = (CLICKS, PURCHASES, POSITIONS)
                writer.write("test", {name: rows[name] for name in rows if name not in unknown})
            catalogue = self.world.catalogue
            writer.close({"category": catalogue.category, "seller": catalogue.seller})
        write_stats(folder, {**log.splits, "test": writer.stats["test"]}, log.numbers, log.digests)

    def chunks(self, folder: Path) -> Iterator[tuple[Visits, Ragged]]:
        """Yields (visits, their candidates in the recommender's order) of a folder that `write` wrote."""
        visits = self._visits()
        for path in Dataset.open(folder).parts("test"):
            with open_part(path) as file:
                for group in range(file.num_row_groups):
                    candidates = decode(file, group, [ITEMS])[ITEMS]
                    assert isinstance(candidates, Ragged), "a list column"
                    yield next(visits), candidates

    def serve(self, folder: Path, scores: Iterable[np.ndarray]) -> np.ndarray:
        """Shows each visit its best candidates, best first, and draws clicks and purchases.

        Args:
            folder: Folder that `write` wrote.
            scores: For each of `chunks`, float [candidates of the chunk].

        Returns:
            float64 [users, `COUNTS`]: 1; visits; clicks; visits with a click; purchases; visits with a purchase; items
            shown, how many of them are of the trigger's category, and clicks on these.
        """
        counts, category = np.zeros((len(self.users), len(COUNTS))), self.world.catalogue.category
        counts[:, 0] = 1
        for (visits, candidates), score in zip(self.chunks(folder), scores, strict=True):
            shown = best(score, candidates, self.world.recommender.page_lengths(visits))
            page = np.repeat(np.arange(len(shown.lengths)), shown.lengths)
            click, order = self.world.outcomes(visits, shown)
            alike = category[shown.values] == category[visits.trigger][page]
            clicks, orders, alike_shown, alike_clicks = (
                np.bincount(page, outcome, len(shown.lengths)) for outcome in (click, order, alike, alike & (click > 0))
            )
            rows = np.stack(
                [
                    *(np.ones_like(clicks), clicks, clicks > 0, orders, orders > 0),
                    *(shown.lengths, alike_shown, alike_clicks),
                ],
                axis=1,
            )
            np.add.at(counts[:, 1:], np.searchsorted(self.users, visits.users.user), rows)
        return counts

    def _visits(self) -> Iterator[Visits]:
        past = self.window.first + self.window.pages
        for first in range(self.window.first, past, CHUNK):
            number = np.arange(first, min(first + CHUNK, past))
            yield self.world.entrance.visits(self.window.promotion, number, self.window.times(number))


def best(scores: np.ndarray, candidates: Ragged, lengths: np.ndarray) -> Ragged:
    """The best candidates of each page, best first; candidates with equal scores keep their order.

    Args:
        scores: float [candidates of all pages].
        candidates: The candidates of each page.
        lengths: int64 [pages], the number of candidates to take.

    >>> pages = Ragged(np.array([7, 8, 9, 5, 6]), np.array([0, 3, 5]))
    >>> best(np.array([0.1, 0.3, 0.2, 0.5, 0.5]), pages, np.array([2, 1])).values.tolist()
    [8, 9, 5]
    """
    page = np.repeat(np.arange(len(lengths)), candidates.lengths)
    order = np.lexsort((-scores, page))
    place = np.arange(len(order)) - candidates.offsets[page]
    return Ragged.from_lengths(candidates.values[order[place < lengths[page]]], lengths)
