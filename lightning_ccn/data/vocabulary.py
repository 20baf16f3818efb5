"""From original ids to table rows: a dense vocabulary that later data extends, or a hash."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lightning_ccn.errors import DataError


class Vocabulary:
    """Original ids in the order in which they were first met; row 0 is the unknown id.

    PageRows never change their meaning: extending appends. So a checkpoint's tables grow with the vocabulary and
    its old rows stay right.

    >>> vocabulary = Vocabulary()
    >>> vocabulary.extend(np.array([70, 30, 70]))
    >>> vocabulary.encode(np.array([30, 70, 99]))
    array([2, 1, 0])
    """

    def __init__(self, ids: pa.Array | None = None) -> None:
        self._ids: pa.Array | None = ids

    def __len__(self) -> int:
        """PageRows, the unknown one included."""
        return 1 + (0 if self._ids is None else len(self._ids))

    @property
    def ids(self) -> pa.Array:
        """Original ids, row 1 first."""
        return pa.array([], pa.int64()) if self._ids is None else self._ids

    def extend(self, ids: np.ndarray | pa.Array) -> None:
        """Appends the ids that are new, in the order of their first appearance; nulls are unknown, not new.

        Raises:
            DataError: the ids are not of the type that the vocabulary holds.
        """
        fresh = pc.drop_null(pc.unique(ids if isinstance(ids, pa.Array) else pa.array(ids)))
        if len(fresh) == 0:  # an empty array's type says nothing about the ids to come
            return
        if len(self) > 1:
            fresh = self._cast(fresh)
            fresh = pa.concat_arrays([self.ids, fresh.filter(pc.invert(pc.is_in(fresh, value_set=self.ids)))])
        self._ids = fresh

    def encode(self, ids: np.ndarray | pa.Array) -> np.ndarray:
        """PageRows of the ids; 0 for an id that is null or not in the vocabulary. int64, same length.

        Raises:
            DataError: the ids are not of the type that the vocabulary holds.
        """
        ids = ids if isinstance(ids, pa.Array) else pa.array(ids)
        if len(self) == 1:
            return np.zeros(len(ids), dtype=np.int64)
        rows = pc.index_in(self._cast(ids), value_set=self.ids, skip_nulls=True)
        return pc.add(pc.fill_null(rows, -1).cast(pa.int64()), 1).to_numpy(zero_copy_only=False)

    def digest(self, rows: int | None = None) -> str:
        """SHA-256 of the first `rows` rows (all by default): equal when, and only when, they mean the same ids."""
        ids = self.ids if rows is None else self.ids.slice(0, rows - 1)
        sha = hashlib.sha256()
        for start in range(0, len(ids), 1 << 20):  # in chunks: a vocabulary may hold tens of millions of ids
            texts = [str(id_) for id_ in ids.slice(start, 1 << 20).to_pylist()]
            # each with its length, so that no two lists of ids read alike
            sha.update("".join(f"{len(text)}:{text}" for text in texts).encode())
        return sha.hexdigest()

    def _cast(self, ids: pa.Array) -> pa.Array:
        try:
            return ids.cast(self.ids.type)
        except pa.ArrowException as error:
            raise DataError(
                f"ids of type {ids.type} do not fit a vocabulary of {self.ids.type} ({error}); "
                "give both the same type, or prepare the data anew"
            ) from None

    def save(self, path: Path) -> None:
        """Writes the ids, one column `id`, row 1 first."""
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"id": self.ids}), path, compression="zstd")

    @staticmethod
    def load(path: Path) -> Vocabulary:
        """Reads what `save` wrote.

        Raises:
            DataError: the file is missing, is not Parquet, has no column `id`, or names an id twice.
        """
        try:
            ids = pq.read_table(path, columns=["id"]).column("id").combine_chunks()
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{path}: cannot be read as a vocabulary (one column `id`): {error}") from None
        if len(pc.unique(ids)) != len(ids) or ids.null_count:
            raise DataError(f"{path}: column id: an id stands twice or is null; each row must be a distinct id")
        return Vocabulary(ids)


def hash_rows(ids: np.ndarray, rows: int) -> np.ndarray:
    """PageRows of integer ids by hash: a 64-bit mix (splitmix64's finaliser), modulo the rows after row 0.

    Args:
        ids: integers [n]; the same id gives the same row on every machine and at every time.
        rows: rows of the table, the unknown row 0 included; no id hashes to it.
    """
    mixed = ids.astype(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return (1 + mixed % np.uint64(rows - 1)).astype(np.int64)
