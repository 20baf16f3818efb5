"""From a log's own ids to rows of a table, with a hash index that is memory-mapped.

A vocabulary of 80 million ids opens at once, and several processes share its pages. Nothing but numpy is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_ccn.data.splitmix64 import hash_rows, splitmix64
from lightning_ccn.serving.errors import RequestError, short_text

HASH, CHECK, ROW, START = "hash", "check", "row", "start"  # the arrays of an index
DIGEST = 16  # bytes of a text's hash: two texts share it with a probability of 1e-22 among a hundred million


@dataclass(frozen=True)
class IdLookup:
    """Rows of a table by the log's own ids.

    The ids of a vocabulary are ordered by a 64-bit hash, whose first bits say where to look. The hash of an integer is
    a bijection. Of a text, 64 more bits are compared.

    Attributes:
        name: Name of the table, for messages.
        rows: Number of rows of the table.
        kind: `integer` or `text`, the type of the ids; `any` of the two, where rows are hashes of ids; or `row`, where
            a table has no vocabulary and its ids are rows.
        arrays: The arrays that `index_of` returned; empty without a vocabulary.
    """

    name: str
    rows: int
    kind: str
    arrays: Mapping[str, np.ndarray]

    def __call__(self, ids: Sequence[Any] | np.ndarray, where: str) -> np.ndarray:
        """Rows of the ids: int64 [n]; 0 for None, and for an id that is not in the vocabulary.

        Args:
            ids: Integers or texts, as the log has them.
            where: The field of the request, for the message.

        Raises:
            RequestError: An id has another type than the log's.
        """
        if self.kind == "text":
            return self._of_texts(ids, where)
        if self.kind == "any":
            ids = [_as_integer(value) if isinstance(value, str) else value for value in ids]
        known, values = _integers(ids, where, self.name)
        if self.kind == "any":
            rows = hash_rows(values, self.rows)
        elif self.kind == "row":
            rows = np.where((values > 0) & (values < self.rows), values, 0)
        else:
            rows = self._find(hash_integers(values), None)
        return np.where(known, rows, 0)

    def _of_texts(self, ids: Sequence[Any] | np.ndarray, where: str) -> np.ndarray:
        known = np.array([text is not None for text in ids], dtype=bool)
        for at, text in enumerate(ids):
            if text is not None and not isinstance(text, str):
                raise RequestError(
                    f"{where}[{at}]: {short_text(text)} is not text, as the ids of table '{self.name}' are"
                )
        halves = hash_texts([text or "" for text in ids])
        return np.where(known, self._find(halves[:, 0], halves[:, 1]), 0)

    def _find(self, hashes: np.ndarray, checks: np.ndarray | None) -> np.ndarray:
        """Rows of hashed ids: uint64 [n] -> int64 [n], 0 where there is none."""
        rows = np.zeros(len(hashes), np.int64)
        if not len(self.arrays[HASH]):
            return rows
        start = self.arrays[START]
        bucket = _bucket(hashes, len(start) - 1)
        at, end = start[bucket].astype(np.int64), start[bucket + 1].astype(np.int64)
        left = np.flatnonzero(at < end)
        while len(left):  # as often as the fullest bucket has ids: about ten times
            here = at[left]
            found = self.arrays[HASH][here] == hashes[left]
            if checks is not None:
                found &= self.arrays[CHECK][here] == checks[left]
            rows[left[found]] = self.arrays[ROW][here[found]]
            at[left] += 1
            left = left[~found & (at[left] < end[left])]
        return rows


def hash_integers(ids: np.ndarray) -> np.ndarray:
    """Hashes of int64 [n] ids, for `index_of`: uint64 [n]."""
    return splitmix64(ids.astype(np.int64)).view(np.uint64)


def hash_texts(texts: Sequence[str]) -> np.ndarray:
    """The two halves of each text's hash, for `index_of`: uint64 [n, 2]."""
    return np.frombuffer(b"".join([_digest(text, DIGEST) for text in texts]), "<u8").reshape(-1, 2)


def index_of(hashes: np.ndarray, checks: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The index of a vocabulary: what `IdLookup` looks ids up in.

    Args:
        hashes: Uint64 [n], of the distinct ids of rows 1, 2, ...
        checks: Uint64 [n], the second half of each hash of a text.
    """
    order = np.argsort(hashes, kind="stable")
    bits = max(len(hashes), 1).bit_length()
    counts = np.bincount(_bucket(hashes, 1 << bits), minlength=1 << bits)
    narrow = np.uint32 if len(hashes) < 1 << 31 else np.uint64
    arrays = {
        HASH: hashes[order],
        ROW: (order + 1).astype(narrow),
        START: np.concatenate([[0], np.cumsum(counts)]).astype(narrow),
    }
    return arrays if checks is None else {**arrays, CHECK: checks[order]}


def _bucket(hashes: np.ndarray, buckets: int) -> np.ndarray:
    """The first bits of the hashes: int64 [n] below `buckets`, a power of two."""
    return (hashes >> np.uint64(64 - (buckets.bit_length() - 1))).astype(np.int64)


def _integers(ids: Sequence[Any] | np.ndarray, where: str, table: str) -> tuple[np.ndarray, np.ndarray]:
    """Which ids are given, bool [n], and their values, int64 [n]."""
    if isinstance(ids, np.ndarray) and ids.dtype.kind in "iu" and ids.dtype != np.uint64:
        return np.ones(len(ids), bool), ids.astype(np.int64)
    for at, value in enumerate(ids):
        if value is not None and (not isinstance(value, int | np.integer) or isinstance(value, bool)):
            raise RequestError(
                f"{where}[{at}]: {short_text(value)} is not an integer, as the ids of table '{table}' are"
            )
        if value is not None and not -(2**63) <= value < 2**63:
            raise RequestError(
                f"{where}[{at}]: {short_text(int(value))} does not fit 64 bits, as the ids of table '{table}' do"
            )
    known = np.array([value is not None for value in ids], dtype=bool)
    return known, np.array([0 if value is None else value for value in ids], dtype=np.int64)


def _as_integer(text: str) -> int:
    """The integer that stands for a text in a hashed table, see `data.build.ids`."""
    return int.from_bytes(_digest(text, 8), "little", signed=True)


def _digest(text: str, size: int) -> bytes:
    try:
        return hashlib.blake2b(text.encode(), digest_size=size).digest()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON allows: no id has one
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()
