"""List columns, stored as one array of values and one of offsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """A list column: row i is `values[offsets[i]:offsets[i + 1]]`.

    Attributes:
        values: Any dtype [sum of lengths].
        offsets: Int64 [rows + 1], starting at 0.
    """

    values: np.ndarray
    offsets: np.ndarray

    @staticmethod
    def from_lengths(values: np.ndarray, lengths: np.ndarray) -> Ragged:
        """Splits `values` into consecutive rows of these lengths."""
        return Ragged(values, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))

    @property
    def lengths(self) -> np.ndarray:
        """Int64 [rows]: number of values of each row."""
        return np.diff(self.offsets)


def row_sums(column: Ragged, values: np.ndarray) -> np.ndarray:
    """Sums over the rows of a column.

    Args:
        column: A column; only where its rows end counts.
        values: Integers or bool, one per value of the column.

    Returns:
        Int64 [rows]; 0 for an empty row.
    """
    total = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    sums: np.ndarray = total[column.offsets[1:]] - total[column.offsets[:-1]]
    return sums


def joined_rows(parts: Sequence[Ragged]) -> Ragged:
    """The rows of several columns, one column after the other; at least one."""
    lengths = np.concatenate([part.lengths for part in parts])
    return Ragged.from_lengths(np.concatenate([part.values for part in parts]), lengths)


def take(column: np.ndarray | Ragged, rows: np.ndarray) -> np.ndarray | Ragged:
    """Selects rows of a column, in the given order."""
    return rows_of(column, rows) if isinstance(column, Ragged) else column[rows]


def rows_of(column: Ragged, rows: np.ndarray) -> Ragged:
    """Selects rows of a list column, in the given order."""
    starts = column.offsets[rows]
    return slices(column, starts, column.offsets[rows + 1] - starts)


def slices(column: Ragged, starts: np.ndarray, lengths: np.ndarray) -> Ragged:
    """Row i of the result is `column.values[starts[i] : starts[i] + lengths[i]]`."""
    return Ragged.from_lengths(column.values[ranges(starts, lengths)], lengths)


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The integers of the ranges [starts[i], starts[i] + lengths[i]), one range after another; int64.

    >>> ranges(np.array([5, 0]), np.array([2, 3]))
    array([5, 6, 0, 1, 2])
    """
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)


def most_recent(column: Ragged, count: int) -> Ragged:
    """The last `count` values of each row."""
    lengths = np.minimum(column.lengths, count)
    return slices(column, column.offsets[1:] - lengths, lengths)
