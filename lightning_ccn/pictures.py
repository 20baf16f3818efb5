"""How well scores fit clicks, as pictures: what a mean over all items hides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.metrics import PageAUC
from lightning_ccn.models.system import Prediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 512
LOGITS, DEGREES = 16.0, 8.0  # bins reach from minus to plus this; what lies beyond counts in the outermost
PAGE_SIZES = ((2, 3), (4, 6), (7, 10), (11, 15), (16, 25), (26, 10**9))


class ScoreSums:
    """Sums over scored items, from which the pictures are drawn; they add up over batches and ranks.

    Attributes:
        calibration: float64 [3, BINS], by logit: items, sum of predicted probabilities, clicks.
        degrees: float64 [2, BINS], items by collaborative degree: unclicked, clicked.
        pages: float64 [sizes], pages of each of `PAGE_SIZES`.
    """

    def __init__(self, device: torch.device) -> None:
        self.calibration = torch.zeros(3, BINS, dtype=torch.float64, device=device)
        self.degrees = torch.zeros(2, BINS, dtype=torch.float64, device=device)
        self.pages = torch.zeros(len(PAGE_SIZES), dtype=torch.float64, device=device)
        self.page_aucs = [PageAUC().to(device) for _ in PAGE_SIZES]

    def update(self, prediction: Prediction, batch: PageBatch) -> None:
        """Adds a batch of whole pages with clicks; it may be empty."""
        assert batch.click is not None
        logit, click = prediction.logit.float(), batch.click.double()
        values = torch.stack([torch.ones_like(click), logit.sigmoid().double(), click])
        self.calibration.index_add_(1, _bin(logit, LOGITS), values)
        if prediction.degree is not None:
            self.degrees.index_add_(1, _bin(prediction.degree.float(), DEGREES), torch.stack([1 - click, click]))
        for number, (low, high) in enumerate(PAGE_SIZES):
            pages = (batch.page_lengths >= low) & (batch.page_lengths <= high)
            items = pages[batch.page]
            self.pages[number] += pages.sum()
            self.page_aucs[number].update(logit[items], click[items], batch.page_lengths[pages])

    def reduce(self, over_ranks: Callable[[Tensor], Tensor]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(calibration, degrees, pages, page AUC [sizes]) over all ranks, each of which must call it."""
        sums = [over_ranks(value).cpu().numpy() for value in (self.calibration, self.degrees, self.pages)]
        return sums[0], sums[1], sums[2], np.array([auc.compute().item() for auc in self.page_aucs])


def _bin(value: Tensor, limit: float) -> Tensor:
    """int64 [items]: the bin of each value; of what is not a number, an outermost one."""
    return (((value / limit).clamp(-1, 1) + 1) * (BINS / 2)).long().clamp(0, BINS - 1)


def degree_histogram(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Counts and edges of the bins from the first to the last that is not empty; None where all are.

    Args:
        counts: [BINS], a row of `ScoreSums.degrees`.
    """
    seen = np.flatnonzero(counts)
    if not len(seen):
        return None
    first, last = seen[0], seen[-1] + 1
    return counts[first:last], np.linspace(-DEGREES, DEGREES, BINS + 1)[first : last + 1]


def calibration_groups(sums: np.ndarray, groups: int = 20) -> np.ndarray:
    """Items in at most `groups` runs of neighbouring logits, about equally many in each.

    Args:
        sums: [3, BINS], `ScoreSums.calibration`.

    Returns:
        [3, groups]: items, their mean prediction, their click rate; lowest prediction first.
    """
    items = sums[0]
    middle = items.cumsum() - items / 2  # of each bin, in items
    group = np.minimum((middle * groups / max(items.sum(), 1)).astype(int), groups - 1)
    totals = np.stack([np.bincount(group, row, groups) for row in sums])
    totals = totals[:, totals[0] > 0]
    return np.stack([totals[0], totals[1] / totals[0], totals[2] / totals[0]])


def calibration_plot(sums: np.ndarray) -> np.ndarray:
    """Click rate against prediction, with two standard errors; uint8 [height, width, 4]."""
    items, predicted, clicked = calibration_groups(sums)

    def draw(axes: Axes) -> None:
        top = max([0.01, *predicted, *clicked]) * 1.05
        axes.plot([0, top], [0, top], color="0.7", linewidth=1)
        error = 2 * np.sqrt(clicked * (1 - clicked) / items)
        axes.errorbar(predicted, clicked, error, fmt="o-", markersize=4, linewidth=1)
        axes.set(xlabel="mean prediction", ylabel="click rate", title="calibration", xlim=(0, top), ylim=(0, top))

    return _pixels(draw)


def page_auc_plot(auc: Sequence[float] | np.ndarray, pages: Sequence[float] | np.ndarray) -> np.ndarray:
    """Page-grouped AUC by exposed items a page; uint8 [height, width, 4]. Sizes without an AUC stay empty."""

    def draw(axes: Axes) -> None:
        axes.plot(range(len(PAGE_SIZES)), auc, "o-")
        axes.axhline(0.5, color="0.7", linewidth=1)
        sizes = [f"{low}-{high}" if high < 10**9 else f"{low}+" for low, high in PAGE_SIZES]
        labels = [f"{size}\n{int(count):,}" for size, count in zip(sizes, pages, strict=True)]
        axes.set_xticks(range(len(PAGE_SIZES)), labels, fontsize=8)
        axes.set(xlabel="exposed items, pages", ylabel="page-grouped AUC", title="page AUC by page size")

    return _pixels(draw)


def _pixels(draw: Callable[[Axes], None]) -> np.ndarray:
    # half a second to import, which only the rank that draws spends; Agg needs no window, whatever the default is
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((5, 4), dpi=80, layout="constrained")
    draw(figure.subplots())
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).copy()
