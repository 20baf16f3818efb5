"""The 64-bit hash that places ids without a vocabulary, crossed features and the draws of a synthetic world."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    Int64 = TypeVar("Int64", np.ndarray, Tensor)

STEPS = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64), (31, 1))  # (shift, factor as int64)


def splitmix64(values: Int64) -> Int64:
    """The finaliser of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).

    It is a bijection: equal values stay equal, different values stay different and scatter over all 64 bits.

    Args:
        values: Int64 array or tensor with at least one dimension. Its bits are read as unsigned integers.

    Returns:
        Int64, same shape: the bits of the unsigned hash.
    """
    for shift, factor in STEPS:
        high = (values >> shift) & (2 ** (64 - shift) - 1)  # the mask clears the copies of the sign bit
        values = (values ^ high) * factor
    return values


def hash_rows(ids: np.ndarray, rows: int) -> np.ndarray:
    """Rows of integer ids by hash: `splitmix64` of the id, modulo the number of rows after row 0.

    Args:
        ids: Integers [n]. An id gets the same row on every machine, in every version of this package.
        rows: Rows of the table, including row 0, the unknown id; no id hashes to row 0.

    Returns:
        Int64 [n] in [1, rows).
    """
    hashed = splitmix64(ids.astype(np.int64)).view(np.uint64)
    return (1 + hashed % np.uint64(rows - 1)).astype(np.int64)
