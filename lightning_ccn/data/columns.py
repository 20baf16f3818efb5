"""The columns of a page row: what each holds, and how a Parquet row group becomes numpy arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lightning_ccn.data import schema as names
from lightning_ccn.data.schema import DataError, Schema
from lightning_ccn.data.writer import Ragged

Rows = Mapping[str, np.ndarray | Ragged]

NULL = np.iinfo(np.int64).min  # a null integer decodes to this: no id, label or time, so checks can name it


@dataclass(frozen=True)
class Column:
    """What a column of a page row holds.

    Attributes:
        name: of the column.
        holds: `id` (a row of `table`), `label` (0 or 1), `time` (seconds since 1970), `integer`,
            `number` (finite, or NaN where it is not known) or `probability`.
        many: a list column.
        table: the table that ids are rows of.
        beside: the list column whose lengths this one shares.
        optional: a folder may leave it out.
    """

    name: str
    holds: str
    many: bool = False
    table: str = ""
    beside: str = ""
    optional: bool = False

    @property
    def expected_type(self) -> str:
        """The type to write; `type_problem` accepts more."""
        value = "float" if self.holds in ("number", "probability") else "int64"
        return f"list<{value}>" if self.many else value

    def type_problem(self, stored: pa.DataType) -> str | None:
        """What is wrong with this Parquet type, and the remedy; None when it fits.

        Any width fits: signed integers, for numbers and probabilities floats too; list and large_list.
        """
        is_list = pa.types.is_list(stored) or pa.types.is_large_list(stored)
        value = stored.value_type if is_list else stored
        as_float = self.holds in ("number", "probability")
        fits = pa.types.is_signed_integer(value) or (as_float and pa.types.is_floating(value))
        if is_list == self.many and fits:
            return None
        remedy = f"cast it to {self.expected_type}"
        if self.holds == "time" and pa.types.is_temporal(value):
            remedy += ", whole seconds since 1970 (Spark: unix_timestamp)"
        return f"the type is {stored}; {remedy}"


def page_columns(schema: Schema) -> list[Column]:
    """The columns that a page row may have: the reader's, and those that only `ccn data check` looks at."""
    truths = (names.TRUE_PROBABILITY, names.ATTAINABLE_PROBABILITY)
    return [
        Column(names.PAGE_ID, "integer"),
        Column(names.TIME, "time"),
        Column(names.TRIGGER, "id", table=names.ITEM),
        *(Column(f.name, "id", many=f.many, table=f.table) for f in schema.user),
        Column(names.ITEMS, "id", many=True, table=names.ITEM),
        Column(names.CLICKS, "label", many=True, beside=names.ITEMS),
        Column(names.PURCHASES, "label", many=True, beside=names.ITEMS, optional=True),
        Column(names.POSITIONS, "integer", many=True, beside=names.ITEMS, optional=True),
        *(Column(name, "number", many=True, beside=names.ITEMS) for name in schema.numbers),
        Column(names.SHORT_ITEMS, "id", many=True, table=names.ITEM),
        Column(names.SHORT_TIMES, "time", many=True, beside=names.SHORT_ITEMS),
        Column(names.LONG_ITEMS, "id", many=True, table=names.ITEM),
        Column(names.LONG_TIMES, "time", many=True, beside=names.LONG_ITEMS),
        *(Column(name, "probability", many=True, beside=names.ITEMS, optional=True) for name in truths),
    ]


def item_columns(schema: Schema) -> list[Column]:
    """The columns of items.parquet: the row's number, and the attributes."""
    return [Column(names.ITEM, "integer"), *(Column(f.name, "id", table=f.table) for f in schema.attributes)]


@contextmanager
def open_part(path: Path) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file; within the block, whatever Parquet cannot read is a DataError that names it.

    Raises:
        DataError: the file is missing, truncated or corrupt, or a column that was asked for is corrupt.
    """
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        why = " ".join(str(error).split())
        raise DataError(f"{path}: not whole Parquet, truncated perhaps; write it again ({why})") from None


def decode(file: pq.ParquetFile, row_group: int, columns: Sequence[str]) -> dict[str, np.ndarray | Ragged]:
    """One row group as numpy arrays.

    A null list is an empty one, a null float NaN, and a null integer `NULL`, which `check_rows` refuses.

    Args:
        file: opened by `open_part`.
        row_group: its number in the file.
        columns: the columns wanted; each must be in the file.

    Returns:
        By column: an array [pages], or a `Ragged` of so many rows; dtypes as stored.
    """
    table = file.read_row_group(row_group, columns=list(columns))
    return {name: _column(table.column(name)) for name in columns}


def _column(column: pa.ChunkedArray) -> np.ndarray | Ragged:
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        return _values(column)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    return Ragged.from_lengths(_values(pc.list_flatten(column)), lengths)


def _values(column: pa.ChunkedArray) -> np.ndarray:
    if column.null_count and pa.types.is_integer(column.type):
        column = pc.fill_null(column.cast(pa.int64()), NULL)
    return column.to_numpy()
