"""Reads a click log's Parquet files as a stream, checks their columns, and converts values to plain types."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lightning_ccn.data.parquet import open_part
from lightning_ccn.errors import DataError

BATCH_ROWS = 65_536


def _is_list(stored: pa.DataType, fits: Callable[[pa.DataType], bool]) -> bool:
    return (pa.types.is_list(stored) or pa.types.is_large_list(stored)) and fits(stored.value_type)


def _is_value(stored: pa.DataType) -> bool:
    return pa.types.is_integer(stored) or pa.types.is_boolean(stored) or _is_text(stored)


def _is_text(stored: pa.DataType) -> bool:
    return pa.types.is_string(stored) or pa.types.is_large_string(stored)


# Kind of column -> description and test of the stored type.
KINDS: dict[str, tuple[str, Callable[[pa.DataType], bool]]] = {
    "integer": ("an integer", pa.types.is_integer),
    "time": ("a timestamp", pa.types.is_timestamp),
    "number": ("a number", lambda stored: pa.types.is_floating(stored) or pa.types.is_integer(stored)),
    "value": ("an integer, a boolean or a string", _is_value),
    "integers": ("a list of integers", lambda stored: _is_list(stored, pa.types.is_integer)),
    "times": ("a list of timestamps", lambda stored: _is_list(stored, pa.types.is_timestamp)),
}


def read_columns(
    path: Path, required: Mapping[str, str], optional: Mapping[str, str] | None = None, rows: int = BATCH_ROWS
) -> Iterator[pa.Table]:
    """Streams columns of a Parquet file.

    Args:
        path: Path of the file.
        required: Kind of each required column, a key of KINDS; with a final `?`, the column may have nulls.
        optional: Kind of each optional column. If the file lacks it, so do the tables.
        rows: Largest number of rows per table.

    Yields:
        Tables with the required columns, then the optional ones that the file has. Integers, booleans and times (whole
        seconds) become int64, numbers float64, lists large lists; a null list becomes an empty one.

    Raises:
        DataError: The file is not a complete Parquet file or has no rows, a column is missing or of another kind, or a
            column without `?` has a null.
    """
    with open_part(path) as file:
        stored = {field.name: field.type for field in file.schema_arrow}
        if file.metadata.num_rows == 0:
            raise DataError(f"{path}: has no rows")
        kinds = dict(required) | {name: kind for name, kind in (optional or {}).items() if name in stored}
        for name, kind in kinds.items():
            if name not in stored:
                raise DataError(f"{path}: column '{name}' is missing; the file has {', '.join(stored)}")
            description, fits = KINDS[kind.rstrip("?")]
            if not fits(stored[name]):
                raise DataError(f"{path}: column '{name}' holds {stored[name]}; cast it to {description}")
        row = 0
        for batch in file.iter_batches(batch_size=rows, columns=list(kinds)):
            for name, kind in kinds.items():
                _check_nulls(path, row, name, kind, batch.column(name))
            yield pa.table({name: _plain(batch.column(name), kind) for name, kind in kinds.items()})
            row += batch.num_rows


def lists(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Lengths, int64 [rows], and values [sum of lengths], of a list column."""
    values = pc.list_flatten(column).combine_chunks()
    return pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64), values


def _check_nulls(path: Path, row: int, name: str, kind: str, column: pa.Array) -> None:
    if kind.endswith("?"):
        return
    many = kind in ("integers", "times")
    if many and pc.list_flatten(column).null_count:
        is_null = [value is not None and None in value for value in column.to_pylist()]
    elif not many and column.null_count:
        is_null = pc.is_null(column).to_pylist()
    else:
        return
    raise DataError(
        f"{path}: row {row + is_null.index(True)} (the first is 0), column '{name}': null, which is not allowed here; "
        "leave that row out"
    )


def _plain(column: pa.Array, kind: str) -> pa.Array:
    match kind.rstrip("?"):
        case "integer":
            return column.cast(pa.int64())
        case "time":
            return column.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
        case "number":
            return column.cast(pa.float64())
        case "integers":
            return column.cast(pa.large_list(pa.int64()))
        case "times":
            return column.cast(pa.large_list(pa.timestamp("s")), safe=False).cast(pa.large_list(pa.int64()))
        case _:
            return column.cast(pa.string() if _is_text(column.type) else pa.int64())
