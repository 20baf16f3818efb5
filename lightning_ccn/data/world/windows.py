"""Which promotion and which days each split comes from."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lightning_ccn.data.dataset import SPLITS
from lightning_ccn.data.world.knobs import WorldConfig
from lightning_ccn.data.world.population import DAY, START

WEEK = 7 * DAY  # a promotion


@dataclass(frozen=True)
class Window:
    """Page views of one promotion, numbered `first` to `first + pages - 1` in it, evenly over [start, end) seconds."""

    promotion: int
    first: int
    pages: int
    start: int
    end: int

    def times(self, number: np.ndarray) -> np.ndarray:
        """int64 seconds since 1970 of these pages, in order of their number."""
        return self.start + (number - self.first) * (self.end - self.start) // self.pages


def windows(config: WorldConfig) -> dict[str, list[Window]]:
    """The windows of each split, in time order; windows do not overlap.

    Training and validation pages spread evenly over the promotions, validation last. Test pages have a promotion to
    themselves, or follow in the same way.
    """
    counts = dict(zip(SPLITS, (config.train_pages, config.validation_pages, config.test_pages), strict=True))
    result: dict[str, list[Window]] = {split: [] for split in SPLITS}
    if config.unseen_test:
        last = config.first_promotion + config.promotions
        start = START + WEEK * last
        result["test"] = [Window(last, 0, counts.pop("test"), start, start + WEEK)]
    bounds = [sum(counts.values()) * k // config.promotions for k in range(config.promotions + 1)]
    begin = 0
    for split, pages in counts.items():
        end = begin + pages
        for k, (low, high) in enumerate(pairwise(bounds)):
            first, past = max(begin, low) - low, min(end, high) - low
            if first < past:
                promotion = config.first_promotion + k
                start, seconds = START + WEEK * promotion, [WEEK * n // (high - low) for n in (first, past)]
                result[split].append(Window(promotion, first, past - first, start + seconds[0], start + seconds[1]))
        begin = end
    return result
