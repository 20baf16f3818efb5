"""Somebody else's Parquet, streamed: columns checked by kind, values made plain."""

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


# By kind: what may be stored, in words and as a test.
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
        path: of the file.
        required: kind of each column that must be there, a key of KINDS; with `?`, nulls may stand in it.
        optional: kind of each column that may be missing; it is then missing in the tables.
        rows: most rows of a table.

    Yields:
        Tables with the required columns, then the optional ones found. Integers, booleans and times (whole
        seconds) have become int64, numbers float64, lists large lists; a null list is an empty one.

    Raises:
        DataError: the file is not whole Parquet or has no rows; a column is missing or of another kind; a null
            where none may be.
    """
    with open_part(path) as file:
        stored = {field.name: field.type for field in file.schema_arrow}
        if file.metadata.num_rows == 0:
            raise DataError(f"{path}: has no rows")
        kinds = dict(required) | {name: kind for name, kind in (optional or {}).items() if name in stored}
        for name, kind in kinds.items():
            if name not in stored:
                raise DataError(f"{path}: column '{name}' is missing; the file has {', '.join(stored)}")
            words, fits = KINDS[kind.rstrip("?")]
            if not fits(stored[name]):
                raise DataError(f"{path}: column '{name}' holds {stored[name]}; cast it to {words}")
        row = 0
        for batch in file.iter_batches(batch_size=rows, columns=list(kinds)):
            for name, kind in kinds.items():
                _refuse_nulls(path, row, name, kind, batch.column(name))
            yield pa.table({name: _plain(batch.column(name), kind) for name, kind in kinds.items()})
            row += batch.num_rows


def lists(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Lengths, int64 [rows], and values [sum of lengths] of a list column."""
    values = pc.list_flatten(column).combine_chunks()
    return pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64), values


def _refuse_nulls(path: Path, row: int, name: str, kind: str, column: pa.Array) -> None:
    if kind.endswith("?"):
        return
    many = kind in ("integers", "times")
    if many and pc.list_flatten(column).null_count:
        holes = [value is not None and None in value for value in column.to_pylist()]
    elif not many and column.null_count:
        holes = pc.is_null(column).to_pylist()
    else:
        return
    raise DataError(
        f"{path}: row {row + holes.index(True)} (the first is 0), column '{name}': a null, which stands for nothing "
        "here; leave that row out"
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
