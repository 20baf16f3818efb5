"""Two baselines without a model, which a trained model must beat: an item's click rate, and its recency."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lightning_ccn.data.dataset import SPLITS, Dataset
from lightning_ccn.data.page_row import CLICKS, ITEM, ITEM_AGE, ITEMS, TIME
from lightning_ccn.data.parquet import PageRows, decode, list_column, open_part, value_column
from lightning_ccn.errors import DataError

PRIOR_EXPOSURES = 20  # an item's click rate is smoothed by this many exposures at the mean click rate


def heuristic_scores(folder: str | Path) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Scores the test split of a dataset folder without a model, one row group at a time.

    - `training click rate`: the logit of the item's smoothed click rate in the training split,
      (clicks + k r) / (exposures + k), where r is the click rate of the split and k = PRIOR_EXPOSURES.
    - `recency`: minus ln(1 + hours of the item's age at the page's time), so newer items score higher. The age is the
      per-item number `item_age`; without it, the time since the folder's first page view that shows the item.

    Memory: a few numbers per row of the item table.

    Args:
        folder: Dataset folder to score.

    Yields:
        Name of the heuristic; scores float32 [items]; clicks int8 [items]; page lengths int64 [pages].

    Raises:
        DataError: The folder is incomplete, or no item or every item of its training split is clicked.
    """
    dataset = Dataset.open(folder)
    rates = _click_rates(dataset)
    aged = ITEM_AGE in dataset.schema.numbers
    first_seen = np.zeros(0) if aged else _first_seen(dataset)
    columns = [TIME, ITEMS, CLICKS, *([ITEM_AGE] if aged else [])]
    for rows in _row_groups(dataset, "test", columns):
        items, clicks = list_column(rows, ITEMS), list_column(rows, CLICKS).values.astype(np.int8)
        yield "training click rate", rates[items.values], clicks, items.lengths
        if aged:
            # an unknown age becomes the mean age, as in the reader
            age = np.nan_to_num(list_column(rows, ITEM_AGE).values, nan=dataset.numbers[ITEM_AGE][0])
        else:
            age = np.log1p((_times(rows) - first_seen[items.values]) / 3600)
        yield "recency", -age.astype(np.float32), clicks, items.lengths


def click_rate_scores(dataset: Dataset) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The `training click rate` of `heuristic_scores` alone, which reads less.

    Yields:
        Scores float32 [items]; clicks int8 [items]; page lengths int64 [pages].

    Raises:
        DataError: The folder is incomplete, or no item or every item of its training split is clicked.
    """
    rates = _click_rates(dataset)
    for rows in _row_groups(dataset, "test", [ITEMS, CLICKS]):
        items = list_column(rows, ITEMS)
        yield rates[items.values], list_column(rows, CLICKS).values.astype(np.int8), items.lengths


def _click_rates(dataset: Dataset) -> np.ndarray:
    """Logit of each item's smoothed click rate, float32 [rows of the item table]."""
    shown = np.zeros(dataset.schema.tables[ITEM].rows)
    clicked = np.zeros_like(shown)
    for rows in _row_groups(dataset, "train", [ITEMS, CLICKS]):
        items = list_column(rows, ITEMS).values
        shown += np.bincount(items, minlength=len(shown))
        clicked += np.bincount(items, list_column(rows, CLICKS).values, minlength=len(shown))
    if not 0 < clicked.sum() < shown.sum():
        raise DataError(
            f"{dataset.folder}: {int(clicked.sum())} of {int(shown.sum())} items of the training split are clicked, "
            "so items cannot be compared by their click rate"
        )
    prior = clicked.sum() / shown.sum() * PRIOR_EXPOSURES
    rate = (clicked + prior) / (shown + PRIOR_EXPOSURES)
    return np.log(rate / (1 - rate)).astype(np.float32)


def _first_seen(dataset: Dataset) -> np.ndarray:
    """Time of the first page view that shows each item, int64 [rows of the item table].

    Test pages count too. This does not leak the future: the first page that shows an item is never later than the page
    that is scored.
    """
    first = np.full(dataset.schema.tables[ITEM].rows, np.iinfo(np.int64).max)
    for split in SPLITS:
        for rows in _row_groups(dataset, split, [TIME, ITEMS]):
            np.minimum.at(first, list_column(rows, ITEMS).values, _times(rows))
    return first


def _row_groups(dataset: Dataset, split: str, columns: list[str]) -> Iterator[PageRows]:
    for path in dataset.parts(split):
        with open_part(path) as file:
            for group in range(file.num_row_groups):
                yield decode(file, group, columns)


def _times(rows: PageRows) -> np.ndarray:
    """Time of each exposed item's page view, int64 [items]."""
    return np.repeat(value_column(rows, TIME), list_column(rows, ITEMS).lengths)
