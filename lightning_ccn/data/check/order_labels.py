"""How many orders a log has, where it has none, and whether each is that of a click."""

from __future__ import annotations

from collections.abc import Iterator

from lightning_ccn.data.orders import unclicked_orders
from lightning_ccn.data.page_row import CLICKS, PURCHASES
from lightning_ccn.data.parquet import PageRows
from lightning_ccn.data.places import Place
from lightning_ccn.data.ragged import Ragged

# of a split that is trained on, and of a test
_LOST = ("model.order_weight cannot use it", "a test has no order_auc")


class OrderLabels:
    """Counts orders by split. A log without the column, or a split without clicks, has nothing to count."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}  # split -> orders, clicks
        self._unclicked: dict[str, tuple[int, str]] = {}  # split -> orders without a click, and the first of them
        self._without: dict[str, Place] = {}  # split -> its first file without the column

    def add(self, split: str, path: Place, first: int, rows: PageRows) -> None:
        """Adds the page rows of one row group; see `Signs.add`."""
        orders, clicks = rows.get(PURCHASES), rows.get(CLICKS)
        if not isinstance(clicks, Ragged):
            return
        if orders is None:
            self._without.setdefault(split, path)
        if not isinstance(orders, Ragged):
            return
        before = self._counts.get(split, (0, 0))
        found = int((orders.values == 1).sum()), int((clicks.values == 1).sum())
        self._counts[split] = before[0] + found[0], before[1] + found[1]
        for problem in unclicked_orders(rows):
            count, example = self._unclicked.get(split, (0, problem.messages(path, first)[0]))
            self._unclicked[split] = count + problem.count, example

    def figures(self) -> Iterator[str]:
        """The lines of the report."""
        if self._counts:
            yield f"{'orders':<36}{'orders':>13}{'per click':>13}"
        for split, (orders, clicks) in self._counts.items():
            yield f"  {split:<34}{orders:>13,}{f'{orders / clicks:.1%}' if clicks else '-':>13}"

    def warnings(self, folder: Place) -> Iterator[str]:
        """Orders without a click, splits without an order, and files without the column that others have.

        Args:
            folder: Of the dataset.
        """
        if self._counts:
            for split, path in self._without.items():
                yield f"{path}: column {PURCHASES}: missing, and other files have it, so {_LOST[split == 'test']}"
        for split, (count, example) in self._unclicked.items():
            yield (
                f"{folder / split}: column {PURCHASES}: {count:,} orders of items that were not clicked, which "
                f"model.order_weight refuses, such as {example}"
            )
        for split, (orders, _) in self._counts.items():
            if not orders:
                yield f"{folder / split}: column {PURCHASES}: every value is 0, so {_LOST[split == 'test']}"
