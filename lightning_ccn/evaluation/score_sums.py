"""Sums over scored items: calibration, collaborative degrees, page AUC by page size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.evaluation.metrics import PageAUC
from lightning_ccn.models.system import Prediction

BINS = 512
LOGITS, DEGREES = 16.0, 8.0  # bins cover [-limit, limit]; values beyond count in the outermost bins
PAGE_SIZES = ((2, 3), (4, 6), (7, 10), (11, 15), (16, 25), (26, 10**9))


class ScoreSums:
    """Sums over scored items, for the plots; they add up over batches and ranks.

    Attributes:
        calibration: Float64 [3, BINS], by logit: number of items, sum of predicted probabilities, number of clicks.
        degrees: Float64 [2, BINS], by collaborative degree: number of unclicked and of clicked items.
        pages: Float64 [sizes], number of pages of each of `PAGE_SIZES`.
        page_aucs: Page-grouped AUC of each of `PAGE_SIZES`.
    """

    def __init__(self, device: torch.device) -> None:
        self.calibration = torch.zeros(3, BINS, dtype=torch.float64, device=device)
        self.degrees = torch.zeros(2, BINS, dtype=torch.float64, device=device)
        self.pages = torch.zeros(len(PAGE_SIZES), dtype=torch.float64, device=device)
        self.page_aucs = [PageAUC().to(device) for _ in PAGE_SIZES]

    def update(self, prediction: Prediction, batch: PageBatch) -> None:
        """Adds a batch of whole pages with clicks; it may be empty."""
        assert batch.clicks is not None
        logit, clicks = prediction.logit.float(), batch.clicks.double()
        values = torch.stack([torch.ones_like(clicks), logit.sigmoid().double(), clicks])
        self.calibration.index_add_(1, _bin(logit, LOGITS), values)
        if prediction.degree is not None:
            self.degrees.index_add_(1, _bin(prediction.degree.float(), DEGREES), torch.stack([1 - clicks, clicks]))
        for number, (low, high) in enumerate(PAGE_SIZES):
            pages = (batch.page_lengths >= low) & (batch.page_lengths <= high)
            items = pages[batch.page]
            self.pages[number] += pages.sum()
            self.page_aucs[number].update(logit[items], clicks[items], batch.page_lengths[pages])

    def reduce(self, over_ranks: Callable[[Tensor], Tensor]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(calibration, degrees, pages, page AUC [sizes]) over all ranks; every rank must call this."""
        sums = [over_ranks(value).cpu().numpy() for value in (self.calibration, self.degrees, self.pages)]
        return sums[0], sums[1], sums[2], np.array([auc.compute().item() for auc in self.page_aucs])


def _bin(value: Tensor, limit: float) -> Tensor:
    """Int64 [items]: the bin of each value; NaN goes to the outermost bin."""
    return (((value / limit).clamp(-1, 1) + 1) * (BINS / 2)).long().clamp(0, BINS - 1)


def degree_histogram(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Counts and edges of the bins from the first to the last one that is not empty; None if all are empty.

    Args:
        counts: [BINS], a row of `ScoreSums.degrees`.
    """
    seen = np.flatnonzero(counts)
    if not len(seen):
        return None
    first, last = seen[0], seen[-1] + 1
    return counts[first:last], np.linspace(-DEGREES, DEGREES, BINS + 1)[first : last + 1]


def calibration_groups(sums: np.ndarray, groups: int = 20) -> np.ndarray:
    """Splits the items by logit into groups of about equal size.

    Args:
        sums: [3, BINS], `ScoreSums.calibration`.
        groups: Largest number of groups.

    Returns:
        [3, groups]: items, their mean prediction, their click rate; lowest prediction first.
    """
    items = sums[0]
    middle = items.cumsum() - items / 2  # of each bin, as a number of items
    group = np.minimum((middle * groups / max(items.sum(), 1)).astype(int), groups - 1)
    totals = np.stack([np.bincount(group, row, groups) for row in sums])
    totals = totals[:, totals[0] > 0]
    return np.stack([totals[0], totals[1] / totals[0], totals[2] / totals[0]])
