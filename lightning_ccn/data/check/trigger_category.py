"""How far users follow the trigger, as far as a log shows it, see docs/choosing.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from lightning_ccn.data import page_row
from lightning_ccn.data.parquet import PageRows
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.schema import Schema


class TriggerCategory:
    """Counts how often items of the trigger's category are shown and clicked, on training pages.

    Args:
        schema: Schema of the dataset. Without a category, nothing is counted.
    """

    def __init__(self, schema: Schema) -> None:
        self._name = schema.category
        self._of_item: np.ndarray | None = None
        self._shown, self._clicked = np.zeros(2, np.int64), np.zeros(2, np.int64)  # of another category, of the same

    def add_items(self, items: Mapping[str, np.ndarray | Ragged]) -> None:
        """Takes the item attributes by name; those with one value are int [rows of the item table]."""
        category = items.get(self._name) if self._name is not None else None
        self._of_item = category if isinstance(category, np.ndarray) else None

    def add(self, rows: PageRows) -> None:
        """Adds training pages of one row group; columns with errors are left out of `rows`."""
        items, clicks, trigger = (rows.get(name) for name in (page_row.ITEMS, page_row.CLICKS, page_row.TRIGGER))
        if self._of_item is None or not isinstance(trigger, np.ndarray):
            return
        if not isinstance(items, Ragged) or not isinstance(clicks, Ragged):
            return
        of_item, of_trigger = self._of_item[items.values], np.repeat(self._of_item[trigger], items.lengths)
        known = (of_item != 0) & (of_trigger != 0)
        same, clicked = (of_item == of_trigger)[known], (clicks.values != 0)[known]
        self._shown += np.bincount(same, minlength=2)
        self._clicked += np.bincount(same[clicked], minlength=2)

    def figures(self) -> Iterator[str]:
        """The lines of the report; none if no page shows items of both kinds, or none is clicked."""
        if not self._shown.all() or not self._clicked.sum():
            return
        yield "how far users follow the trigger, on training pages"
        for what, counts in (("items of the trigger's category", self._shown), ("clicks on these", self._clicked)):
            yield f"  {what:<36}{counts[1] / counts.sum():>11.1%}"
