"""The promotions and the times of each split."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lightning_ccn.data.dataset import SPLITS
from lightning_ccn.data.world.knobs import WorldConfig
from lightning_ccn.data.world.population import DAY, START

WEEK = 7 * DAY  # the duration of a promotion


@dataclass(frozen=True)
class Window:
    """Page views `first` to `first + pages - 1` of one promotion, spread evenly over [start, end) seconds."""

    promotion: int
    first: int
    pages: int
    start: int
    end: int

    def times(self, number: np.ndarray) -> np.ndarray:
        """Int64 seconds since 1970 of the pages with these numbers."""
        return self.start + (number - self.first) * (self.end - self.start) // self.pages


def windows(config: WorldConfig) -> dict[str, list[Window]]:
    """The windows of each split, in time order and without overlap.

    Training pages, then validation pages, are spread evenly over the promotions. Test pages have a promotion of their
    own, or without `unseen_test`, follow in the same promotions.
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
