"""The labels of orders: the column `purchases` of page rows, which a log may have and only an order head reads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lightning_ccn.data.columns import page_columns
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.page_row import CLICKS, PURCHASES
from lightning_ccn.data.parquet import PageRows, decode, list_column, open_part
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.rules import Problem, problem_where
from lightning_ccn.errors import DataError

REMEDY = "or train without model.order_weight"


def has_orders(dataset: Dataset, split: str) -> bool:
    """Whether every file of a split has the column, by their footers alone; false for a split without files."""
    found = []
    for path in dataset.parts(split):
        with open_part(path) as file:
            found.append(PURCHASES in file.schema_arrow.names)
    return bool(found) and all(found)


def refuse_without_orders(dataset: Dataset, split: str) -> None:
    """Checks that orders can be learned from a split, or be compared with it.

    It reads the column up to the first row group with an order. A split without files is left to the reader.

    Raises:
        DataError: A file has no such column, or the split has no order.
    """
    (column,) = [column for column in page_columns(dataset.schema) if column.name == PURCHASES]
    parts = dataset.parts(split)
    for path in parts:
        with open_part(path) as file:
            if PURCHASES not in file.schema_arrow.names:
                raise DataError(
                    f"{path}: column {PURCHASES}: missing, and model.order_weight needs it; write it as "
                    f"{column.expected_type}, 1 for an exposed item that was bought, {REMEDY}"
                )
            if problem := column.type_problem(file.schema_arrow.field(PURCHASES).type):
                raise DataError(f"{path}: column {PURCHASES}: {problem}")
    for path in parts:
        with open_part(path) as file:
            for group in range(file.num_row_groups):
                if (list_column(decode(file, group, [PURCHASES]), PURCHASES).values == 1).any():
                    return
    if parts:
        raise DataError(
            f"{dataset.folder / split}: column {PURCHASES}: no value is 1, so there is no order to learn from; "
            f"write 1 for an exposed item that was bought, {REMEDY}"
        )


def unclicked_orders(rows: PageRows) -> Iterator[Problem]:
    """The orders of items that were not clicked, of one decoded row group.

    The order head's p(order) is p(click) p(order | click), so it cannot describe them.

    Args:
        rows: The row group; without one of the columns, or where their lengths differ, there is nothing to compare.
    """
    orders, clicks = rows.get(PURCHASES), rows.get(CLICKS)
    if not isinstance(orders, Ragged) or not isinstance(clicks, Ragged):
        return
    if not np.array_equal(orders.offsets, clicks.offsets):
        return
    wrong = (orders.values == 1) & (clicks.values == 0)
    remedy = "an order is that of a click: write 1 in clicks, or 0 here"
    yield from problem_where(PURCHASES, orders, wrong, lambda at: "1, but the item's click is 0", remedy)
