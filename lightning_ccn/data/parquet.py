"""Parquet row groups as numpy arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lightning_ccn.data.ragged import Ragged
from lightning_ccn.errors import DataError

PageRows = Mapping[str, np.ndarray | Ragged]
NULL = np.iinfo(np.int64).min  # a null integer decodes to this: no id, label or time, so checks can name it


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
