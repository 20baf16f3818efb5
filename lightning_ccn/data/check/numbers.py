"""Numbers of items and pages that stand for something else: a word for "missing", or the click itself."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lightning_ccn.data import page_row
from lightning_ccn.data.parquet import PageRows
from lightning_ccn.data.places import Place
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.schema import Schema
from lightning_ccn.data.writer import Moments

SAMPLE = 1 << 16  # items, the first ones of the training split, of which the AUC of a number is computed
FEWEST = 50  # clicked, and unclicked, items that are enough for an AUC
MOST_AUC = 0.95  # of a single number, beyond belief
MOST_DEVIATIONS = 1_000  # of the smallest or largest number from the others


class NumberSigns:
    """Looks for numbers that are too far out, or too good. Memory: a sample of `SAMPLE` items per number."""

    def __init__(self, schema: Schema) -> None:
        names = (*schema.numbers, *schema.page_numbers)
        self._extremes = {name: (_Extreme(1), _Extreme(-1)) for name in names}
        self._sampled: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in names}
        self._size = dict.fromkeys(names, 0)

    def add(self, rows: PageRows) -> None:
        """Adds training pages of one row group; columns with errors are left out of `rows`."""
        clicks = rows.get(page_row.CLICKS)
        for name, extremes in self._extremes.items():
            if (column := rows.get(name)) is None:
                continue
            values = (column.values if isinstance(column, Ragged) else column).astype(np.float64)
            for extreme in extremes:
                extreme.add(values[~np.isnan(values)])
            if isinstance(clicks, Ragged) and self._size[name] < SAMPLE:
                if not isinstance(column, Ragged):
                    values = np.repeat(values, clicks.lengths)  # of each item of the page
                self._sampled[name].append((values, clicks.values))
                self._size[name] += len(values)

    def warnings(self, folder: Place) -> Iterator[str]:
        """One line per number that is beyond belief; `folder` is that of the training split."""
        for name, extremes in self._extremes.items():
            for extreme in extremes:
                if (away := extreme.deviations) > MOST_DEVIATIONS:
                    yield (
                        f"{folder}: column {name}: {extreme.value:g} is {away:,.0f} deviations from the mean of the "
                        "others, which can hardly be told apart beside it; write NaN or null for an unknown number"
                    )
            auc = self._auc(name)
            if auc is not None and max(auc, 1 - auc) > MOST_AUC:
                yield (
                    f"{folder}: column {name}: its AUC alone is {auc:.3f}, so it tells the clicks (a missing number is "
                    "taken as the smallest); leave out what is only known after the page was shown"
                )

    def _auc(self, name: str) -> float | None:
        if not self._sampled[name]:
            return None
        values, clicks = (np.concatenate(arrays) for arrays in zip(*self._sampled[name], strict=True))
        clicked = clicks == 1
        positives, negatives = np.count_nonzero(clicked), np.count_nonzero(~clicked)
        if min(positives, negatives) < FEWEST:
            return None
        _, place, count = np.unique(np.nan_to_num(values, nan=-np.inf), return_inverse=True, return_counts=True)
        rank = (np.cumsum(count) - (count - 1) / 2)[place]  # equal numbers share their mean rank
        return float((rank[clicked].sum() - positives * (positives + 1) / 2) / (positives * negatives))


class _Extreme:
    """The largest number of a stream (`sign` 1) or the smallest (-1), and the moments of all others."""

    def __init__(self, sign: int) -> None:
        self._sign, self._most, self._count, self._others = sign, -np.inf, 0, Moments()

    def add(self, values: np.ndarray) -> None:
        if not values.size:
            return
        signed = self._sign * values
        most = float(signed.max())
        if most > self._most:
            if self._count:
                self._others.merge(self._count, self._most, 0.0)
            self._most, self._count = most, 0
        self._count += int(np.count_nonzero(signed == self._most))
        self._others.add(signed[signed < self._most])

    @property
    def value(self) -> float:
        return self._sign * self._most

    @property
    def deviations(self) -> float:
        """How far the extreme is from the mean of the others, in their deviations; 0 if these are all equal."""
        others = self._others
        if others.count < 2 or not others.varies:
            return 0.0
        return (self._most - others.mean) / others.deviation
