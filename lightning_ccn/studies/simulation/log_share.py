"""How many items of the trigger's category a log shows, and how many of its clicks are on them."""

from __future__ import annotations

import numpy as np

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.page_row import CLICKS, ITEMS, TRIGGER
from lightning_ccn.data.parquet import decode, list_column, open_part, value_column


def log_shares(log: Dataset, category: np.ndarray) -> dict[str, float | None]:
    """The shares of the test split's impressions and clicks, by the names of `lift.SHARES`; None without any.

    Args:
        log: The dataset.
        category: Int [rows of the item table], the category of each item.
    """
    shown = alike_shown = clicks = alike_clicks = 0
    for path in log.parts("test"):
        with open_part(path) as file:
            for group in range(file.num_row_groups):
                rows = decode(file, group, [ITEMS, TRIGGER, CLICKS])
                items, clicked = list_column(rows, ITEMS), list_column(rows, CLICKS).values == 1
                alike = category[items.values] == np.repeat(category[value_column(rows, TRIGGER)], items.lengths)
                shown, alike_shown = shown + len(alike), alike_shown + int(alike.sum())
                clicks, alike_clicks = clicks + int(clicked.sum()), alike_clicks + int((alike & clicked).sum())
    return {
        "alike_shown": alike_shown / shown if shown else None,
        "alike_clicked": alike_clicks / clicks if clicks else None,
    }
