"""All that is looked for in page rows without errors, in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lightning_ccn.data.check.by_day import Days
from lightning_ccn.data.check.copies import Copies
from lightning_ccn.data.check.leaks import Leaks
from lightning_ccn.data.check.lengths import Lengths
from lightning_ccn.data.check.numbers import NumberSigns
from lightning_ccn.data.check.order_labels import OrderLabels
from lightning_ccn.data.check.page_contrast import PageContrast
from lightning_ccn.data.check.trigger_category import TriggerCategory
from lightning_ccn.data.check.usage import Usage
from lightning_ccn.data.parquet import PageRows
from lightning_ccn.data.places import Place
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.schema import Schema


class Signs:
    """Signs of mistakes that no single value shows, and what a reader of the report wants to know of the pages.

    Attributes:
        usage: Unknown ids, and rows of tables that are used.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema, self.usage = schema, Usage(schema)
        self._leaks, self._numbers, self._days = Leaks(schema), NumberSigns(schema), Days(schema)
        self._lengths, self._copies, self._contrast = Lengths(), Copies(schema), PageContrast()
        self._orders, self._trigger = OrderLabels(), TriggerCategory(schema)

    def add_items(self, items: Mapping[str, np.ndarray | Ragged]) -> None:
        """Takes the item attributes by name, int [rows of the item table] each; before any page."""
        self.usage.add_items(self._schema.attributes, items)
        self._trigger.add_items(items)

    def add(self, split: str, path: Place, first: int, rows: PageRows) -> None:
        """Adds the page rows of one row group.

        Args:
            split: The split, in the order of `SPLITS`.
            path: The file, for messages.
            first: Number of the row group's first row in the file.
            rows: The columns of the row group that have no errors.
        """
        self.usage.add(split, rows)
        self._leaks.add(split, path, first, rows)
        self._days.add(split, path, first, rows)
        self._lengths.add(split, rows)
        self._copies.add(split, path, first, rows)
        self._orders.add(split, path, first, rows)
        if split == "train":
            self._numbers.add(rows)
            self._contrast.add(rows)
            self._trigger.add(rows)

    def figures(self) -> list[str]:
        """The lines of the report."""
        signs = (self._leaks, self._contrast, self._trigger, self._orders, self.usage)
        return [line for sign in signs for line in sign.figures()]

    def plain(self) -> dict[str, Any]:
        """What `Days`, `Lengths` and `Usage` counted, and the figures of `Leaks` (`leaks`), as plain values."""
        found = {"days": self._days.plain(), "lengths": self._lengths.plain(), "leaks": list(self._leaks.figures())}
        return {**found, **self.usage.plain()}

    def warnings(self, folder: Place) -> Iterator[tuple[str, list[str]]]:
        """The lines of each kind; `folder` is that of the dataset."""
        yield "leaks", list(self._leaks.warnings(folder))
        yield "copies", list(self._copies.warnings())
        yield "days", list(self._days.warnings(folder))
        yield "usage", list(self.usage.warnings(folder))
        yield "orders", list(self._orders.warnings(folder))
        yield "numbers", list(self._numbers.warnings(folder / "train"))
