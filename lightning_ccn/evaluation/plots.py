"""Calibration and page AUC as images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightning_ccn.evaluation.score_sums import PAGE_SIZES, calibration_groups

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def calibration_plot(sums: np.ndarray) -> np.ndarray:
    """Click rate against mean prediction, with error bars of two standard errors.

    Args:
        sums: [3, BINS], `ScoreSums.calibration`.

    Returns:
        RGBA image, uint8 [height, width, 4].
    """
    items, predicted, clicked = calibration_groups(sums)

    def draw(axes: Axes) -> None:
        top = max([0.01, *predicted, *clicked]) * 1.05
        axes.plot([0, top], [0, top], color="0.7", linewidth=1)
        error = 2 * np.sqrt(clicked * (1 - clicked) / items)
        axes.errorbar(predicted, clicked, error, fmt="o-", markersize=4, linewidth=1)
        axes.set(xlabel="mean prediction", ylabel="click rate", title="calibration", xlim=(0, top), ylim=(0, top))

    return _pixels(draw)


def page_auc_plot(auc: Sequence[float] | np.ndarray, pages: Sequence[float] | np.ndarray) -> np.ndarray:
    """Page-grouped AUC by number of exposed items per page; sizes without an AUC (NaN) stay empty.

    Args:
        auc: [sizes], the AUC of each of `PAGE_SIZES`.
        pages: [sizes], number of pages of each size.

    Returns:
        RGBA image, uint8 [height, width, 4].
    """

    def draw(axes: Axes) -> None:
        axes.plot(range(len(PAGE_SIZES)), auc, "o-")
        axes.axhline(0.5, color="0.7", linewidth=1)
        sizes = [f"{low}-{high}" if high < 10**9 else f"{low}+" for low, high in PAGE_SIZES]
        labels = [f"{size}\n{int(count):,}" for size, count in zip(sizes, pages, strict=True)]
        axes.set_xticks(range(len(PAGE_SIZES)), labels, fontsize=8)
        axes.set(xlabel="exposed items, pages", ylabel="page-grouped AUC", title="page AUC by page size")

    return _pixels(draw)


def _pixels(draw: Callable[[Axes], None]) -> np.ndarray:
    # The import takes half a second, so only the rank that draws does it. Agg needs no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((5, 4), dpi=80, layout="constrained")
    draw(figure.subplots())
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).copy()
