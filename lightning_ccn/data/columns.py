"""The columns of page rows and of items.parquet, and what each holds."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from lightning_ccn.data import page_row
from lightning_ccn.data.schema import Schema

LARGEST = 1e30  # of a number, without its sign: a larger one is a system's word for "missing", such as FLT_MAX

FLOATS = ("number", "amount", "weight", "probability")  # what may be stored as floats


@dataclass(frozen=True)
class Column:
    """A column and its values.

    Attributes:
        name: Name of the column.
        holds: What its values are: `id` (a row of `table`), `binary` (0 or 1), `time` (seconds since 1970), `integer`,
            `position` (from 1 on),
            `number` (at most `LARGEST` without its sign; NaN or null for unknown), `amount` (such a number above 0),
            `weight` (a number from 0 on) or
            `probability`.
        many: Whether it is a list column.
        table: The table whose rows the ids are.
        beside: The list column that must have the same lengths.
        optional: Whether a dataset may leave the column out.
    """

    name: str
    holds: str
    many: bool = False
    table: str = ""
    beside: str = ""
    optional: bool = False

    @property
    def expected_type(self) -> str:
        """The type to ask for in messages; `type_problem` accepts more types."""
        value = "float" if self.holds in FLOATS else "int64"
        return f"list<{value}>" if self.many else value

    def type_problem(self, stored: pa.DataType) -> str | None:
        """What is wrong with this Parquet type and how to fix it; None if it fits.

        Signed integers of any width fit, and floats for what `FLOATS` names; both list and large_list fit.
        """
        is_list = pa.types.is_list(stored) or pa.types.is_large_list(stored)
        value = stored.value_type if is_list else stored
        fits = pa.types.is_signed_integer(value) or (self.holds in FLOATS and pa.types.is_floating(value))
        if is_list == self.many and fits:
            return None
        remedy = f"cast it to {self.expected_type}"
        if self.holds == "time" and pa.types.is_temporal(value):
            remedy += ", whole seconds since 1970 (Spark: unix_timestamp)"
        return f"the type is {stored}; {remedy}"


def page_columns(schema: Schema) -> list[Column]:
    """The columns that a page row may have: the reader's, and those that only `ccn data check` reads."""
    truths = (page_row.TRUE_PROBABILITY, page_row.ATTAINABLE_PROBABILITY)
    return [
        Column(page_row.PAGE_ID, "integer"),
        Column(page_row.TIME, "time"),
        Column(page_row.TRIGGER, "id", table=page_row.ITEM),
        *(Column(f.name, "id", many=f.many, table=f.table) for f in schema.user),
        Column(page_row.ITEMS, "id", many=True, table=page_row.ITEM),
        Column(page_row.CLICKS, "binary", many=True, beside=page_row.ITEMS),
        Column(page_row.PURCHASES, "binary", many=True, beside=page_row.ITEMS, optional=True),
        Column(page_row.POSITIONS, "position", many=True, beside=page_row.ITEMS)
        if schema.position_bias
        else Column(page_row.POSITIONS, "integer", many=True, beside=page_row.ITEMS, optional=True),
        *(Column(name, "number", many=True, beside=page_row.ITEMS) for name in schema.numbers),
        *(Column(name, "number") for name in schema.page_numbers),
        *(Column(name, "weight", many=True, beside=page_row.ITEMS) for name in [schema.weight] if name),
        Column(page_row.SHORT_ITEMS, "id", many=True, table=page_row.ITEM),
        Column(page_row.SHORT_TIMES, "time", many=True, beside=page_row.SHORT_ITEMS),
        Column(page_row.LONG_ITEMS, "id", many=True, table=page_row.ITEM),
        Column(page_row.LONG_TIMES, "time", many=True, beside=page_row.LONG_ITEMS),
        *(Column(name, "probability", many=True, beside=page_row.ITEMS, optional=True) for name in truths),
        Column(page_row.FOR_TRIGGER, "binary", optional=True),
    ]


def item_columns(schema: Schema) -> list[Column]:
    """The columns of items.parquet: the number of the row, the attributes, and the numbers."""
    return [
        Column(page_row.ITEM, "integer"),
        *(Column(f.name, "id", many=f.many, table=f.table) for f in schema.attributes),
        *(Column(name, "amount") for name in schema.ratio_to_trigger),
    ]
