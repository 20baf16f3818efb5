"""List columns as one array of values and one of offsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """A list column: row i is `values[offsets[i]:offsets[i + 1]]`.

    Attributes:
        values: any dtype [sum of lengths].
        offsets: int64 [rows + 1], starting at 0.
    """

    values: np.ndarray
    offsets: np.ndarray

    @staticmethod
    def from_lengths(values: np.ndarray, lengths: np.ndarray) -> Ragged:
        """PageRows of the given lengths, in order."""
        return Ragged(values, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))

    @property
    def lengths(self) -> np.ndarray:
        """int64 [rows]."""
        return np.diff(self.offsets)


def take(column: np.ndarray | Ragged, rows: np.ndarray) -> np.ndarray | Ragged:
    """The given rows of a column, in the given order."""
    if not isinstance(column, Ragged):
        return column[rows]
    return slices(column, column.offsets[rows], column.lengths[rows])


def concatenate(parts: Sequence[np.ndarray | Ragged]) -> np.ndarray | Ragged:
    """Columns one after another."""
    if not isinstance(parts[0], Ragged):
        return np.concatenate([part for part in parts if not isinstance(part, Ragged)])
    ragged = [part for part in parts if isinstance(part, Ragged)]
    return Ragged.from_lengths(
        np.concatenate([part.values for part in ragged]), np.concatenate([part.lengths for part in ragged])
    )


def slices(column: Ragged, starts: np.ndarray, lengths: np.ndarray) -> Ragged:
    """Row i: `lengths[i]` values from position `starts[i]` on."""
    ends = np.cumsum(lengths)
    at = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)
    return Ragged.from_lengths(column.values[at], lengths)


def most_recent(column: Ragged, count: int) -> Ragged:
    """The last `count` values of each row."""
    lengths = np.minimum(column.lengths, count)
    return slices(column, column.offsets[1:] - lengths, lengths)
