"""Two yardsticks that a model must beat to have learned anything: an item's training click rate, and its recency."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lightning_ccn.data.convert.encoder import ITEM_AGE
from lightning_ccn.data.dataset import SPLITS, Dataset
from lightning_ccn.data.page_row import CLICKS, ITEM, ITEMS, TIME
from lightning_ccn.data.parquet import decode, open_part
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.errors import DataError

PRIOR_EXPOSURES = 20  # an item's click rate starts as the average one, worth so many exposures


def heuristic_scores(folder: str | Path) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """ScoreCollector the test split of a dataset folder without a model, one row group at a time.

    - `training click rate`: the logit of (clicks + k r) / (exposures + k) of the item in the training split, with r
      that split's click rate and k = PRIOR_EXPOSURES. An item never seen in training gets the logit of r.
    - `recency`: minus ln(1 + hours) of the item's age at the page's time, so the newest item comes first. The age
      is the per-item number `item_age`, or else counts from the first page view of the folder that shows the item.

    Holds a few numbers for each row of the item table.

    Args:
        folder: a dataset folder.

    Yields:
        Name of the yardstick; scores float32 [items]; clicks int8 [items]; page lengths int64 [pages].

    Raises:
        DataError: the folder is not whole, or its training split has no clicked or no unclicked item.
    """
    dataset = Dataset.open(folder)
    rates = _click_rates(dataset)
    aged = ITEM_AGE in dataset.schema.numbers
    first_seen = np.zeros(0) if aged else _first_seen(dataset)
    columns = [TIME, ITEMS, CLICKS, *([ITEM_AGE] if aged else [])]
    for rows in _row_groups(dataset, "test", columns):
        items, clicks = _ragged(rows, ITEMS), _ragged(rows, CLICKS).values.astype(np.int8)
        yield "training click rate", rates[items.values], clicks, items.lengths
        if aged:
            # an item of unknown age is as old as the average one, as the reader has it
            age = np.nan_to_num(_ragged(rows, ITEM_AGE).values, nan=dataset.numbers[ITEM_AGE][0])
        else:
            age = np.log1p((_times(rows) - first_seen[items.values]) / 3600)
        yield "recency", -age.astype(np.float32), clicks, items.lengths


def _click_rates(dataset: Dataset) -> np.ndarray:
    """Logit of each item's smoothed click rate: float32 [rows of the item table]."""
    shown = np.zeros(dataset.schema.tables[ITEM].rows)
    clicked = np.zeros_like(shown)
    for rows in _row_groups(dataset, "train", [ITEMS, CLICKS]):
        items = _ragged(rows, ITEMS).values
        shown += np.bincount(items, minlength=len(shown))
        clicked += np.bincount(items, _ragged(rows, CLICKS).values, minlength=len(shown))
    if not 0 < clicked.sum() < shown.sum():
        raise DataError(
            f"{dataset.folder}: {int(clicked.sum())} of {int(shown.sum())} items of the training split are clicked, "
            "so there is no click rate to compare items by"
        )
    prior = clicked.sum() / shown.sum() * PRIOR_EXPOSURES
    rate = (clicked + prior) / (shown + PRIOR_EXPOSURES)
    return np.log(rate / (1 - rate)).astype(np.float32)


def _first_seen(dataset: Dataset) -> np.ndarray:
    """Time of the first page view that shows each item: int64 [rows of the item table].

    Test pages count too: an item on a test page was first shown on that page or earlier, so its age there looks back.
    """
    first = np.full(dataset.schema.tables[ITEM].rows, np.iinfo(np.int64).max)
    for split in SPLITS:
        for rows in _row_groups(dataset, split, [TIME, ITEMS]):
            np.minimum.at(first, _ragged(rows, ITEMS).values, _times(rows))
    return first


def _row_groups(dataset: Dataset, split: str, columns: list[str]) -> Iterator[dict[str, np.ndarray | Ragged]]:
    for path in dataset.parts(split):
        with open_part(path) as file:
            for group in range(file.num_row_groups):
                yield decode(file, group, columns)


def _times(rows: dict[str, np.ndarray | Ragged]) -> np.ndarray:
    """Time of each exposed item's page view: int64 [items]."""
    time = rows[TIME]
    assert isinstance(time, np.ndarray), f"{TIME} is not a list column"
    return np.repeat(time, _ragged(rows, ITEMS).lengths)


def _ragged(rows: dict[str, np.ndarray | Ragged], name: str) -> Ragged:
    column = rows[name]
    assert isinstance(column, Ragged), f"{name} is a list column"
    return column
