"""Calibration and page AUC as images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
from lightning_ccn.evaluation.score_sums import PAGE_SIZES, calibration_groups


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
