"""Where a log lies on the axes that decide whether losses over a page's items pay, see docs/choosing.md."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lightning_ccn.data import page_row
from lightning_ccn.data.parquet import PageRows
from lightning_ccn.data.ragged import Ragged, row_sums

POINTS = 64  # of the quadrature over a normal distribution
MOST = 6.0  # the largest clickiness that is told apart; nearly all pages of such a log have one label


class PageContrast:
    """Counts what the training pages offer to losses over a page's items. Memory: seven numbers."""

    def __init__(self) -> None:
        self._pages = self._items = self._clicks = self._both = self._several = 0
        self._click_pairs = self._item_pairs = 0

    def add(self, rows: PageRows) -> None:
        """Adds training pages of one row group; columns with errors are left out of `rows`."""
        clicks = rows.get(page_row.CLICKS)
        if not isinstance(clicks, Ragged):
            return
        shown, clicked = clicks.lengths.astype(np.int64), row_sums(clicks, clicks.values != 0).astype(np.int64)
        self._pages += len(shown)
        self._items += int(shown.sum())
        self._clicks += int(clicked.sum())
        both = (clicked > 0) & (clicked < shown)
        self._both += int(both.sum())
        self._several += int((both & (clicked > 1)).sum())
        self._click_pairs += int((clicked * (clicked - 1)).sum())
        self._item_pairs += int((shown * (shown - 1)).sum())

    def figures(self) -> Iterator[str]:
        """The lines of the report; none without a training page."""
        if not self._items:
            return
        clickiness = self.clickiness()
        yield "what training pages offer to losses over a page's items"
        for what, value in (
            ("items per page, mean", f"{self._items / self._pages:.1f}"),
            ("clicks per page, mean", f"{self._clicks / self._pages:.2f}"),
            ("pages with both labels", f"{self._both / self._pages:.1%}"),
            ("of these, pages with several clicks", f"{self._several / max(self._both, 1):.1%}"),
            ("clickiness of pages", _shown(clickiness)),
        ):
            yield f"  {what:<36}{value:>11}"

    def clickiness(self) -> float | None:
        """The standard deviation of the pages' shift in logits that explains how unevenly the clicks are spread.

        If all items of all pages had one click rate, the share of clicked pairs among a page's pairs would be its
        square. It is larger where some pages are more clicked than others. The shift is taken to be normal; what else
        makes pages differ, such as their users, is part of it.

        Returns:
            None if no page has two clicks, so that nothing shows it, or the labels are all equal. At most `MOST`.
        """
        rate = self._clicks / self._items
        if not self._click_pairs or rate in (0, 1):
            return None
        of_pairs = self._click_pairs / self._item_pairs
        low, high = 0.0, MOST
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if _pair_rate(rate, middle) < of_pairs else (low, middle)
        return low


def _shown(clickiness: float | None) -> str:
    if clickiness is None:
        return "-"
    return f"{MOST:g} or more" if clickiness > 0.99 * MOST else f"{clickiness:.2f}"


def _pair_rate(rate: float, clickiness: float) -> float:
    """The probability that two items of a page are both clicked, if pages shift a logit that gives this click rate."""
    at, weight = np.polynomial.hermite_e.hermegauss(POINTS)
    weight = weight / weight.sum()
    low, high = -40.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        clicked = 1 / (1 + np.exp(-(middle + clickiness * at)))
        low, high = (middle, high) if weight @ clicked < rate else (low, middle)
    return float(weight @ clicked**2)
