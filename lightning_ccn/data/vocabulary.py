"""From original ids to rows of an embedding table: by a vocabulary that later data extends, or by a hash."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lightning_ccn.data.places import Place
from lightning_ccn.data.store_copies import local_copy
from lightning_ccn.errors import DataError


class Vocabulary:
    """Original ids in the order of their first appearance; row 0 is the unknown id.

    The row of an id never changes: `extend` only appends. So the tables of a checkpoint can grow with the vocabulary,
    and their old rows stay valid.

    >>> vocabulary = Vocabulary()
    >>> vocabulary.extend(np.array([70, 30, 70]))
    >>> vocabulary.encode(np.array([30, 70, 99]))
    array([2, 1, 0])
    """

    def __init__(self, ids: pa.Array | None = None) -> None:
        self._ids: pa.Array | None = ids

    def __len__(self) -> int:
        """Number of rows, including row 0."""
        return 1 + (0 if self._ids is None else len(self._ids))

    @property
    def ids(self) -> pa.Array:
        """The original ids of rows 1, 2, ..."""
        return pa.array([], pa.int64()) if self._ids is None else self._ids

    def extend(self, ids: np.ndarray | pa.Array) -> None:
        """Appends new ids in the order of their first appearance; a null is the unknown id, not a new one.

        Raises:
            DataError: The ids cannot be cast to the vocabulary's type.
        """
        fresh = pc.drop_null(pc.unique(ids if isinstance(ids, pa.Array) else pa.array(ids)))
        if len(fresh) == 0:  # do not take over the type of an empty array
            return
        if len(self) > 1:
            fresh = self._cast(fresh)
            fresh = pa.concat_arrays([self.ids, fresh.filter(pc.invert(pc.is_in(fresh, value_set=self.ids)))])
        self._ids = fresh

    def encode(self, ids: np.ndarray | pa.Array) -> np.ndarray:
        """Rows of the ids, int64 [n]; 0 for an id that is null or not in the vocabulary.

        Raises:
            DataError: The ids cannot be cast to the vocabulary's type.
        """
        ids = ids if isinstance(ids, pa.Array) else pa.array(ids)
        if len(self) == 1:
            return np.zeros(len(ids), dtype=np.int64)
        rows = pc.index_in(self._cast(ids), value_set=self.ids, skip_nulls=True)
        return pc.add(pc.fill_null(rows, -1).cast(pa.int64()), 1).to_numpy(zero_copy_only=False)

    def digest(self, rows: int | None = None) -> str:
        """SHA-256 of the ids of the first `rows` rows (default: all). Equal digests mean equal ids."""
        ids = self.ids if rows is None else self.ids.slice(0, rows - 1)
        sha = hashlib.sha256()
        for start in range(0, len(ids), 1 << 20):  # in chunks: a vocabulary may hold tens of millions of ids
            texts = [str(id_) for id_ in ids.slice(start, 1 << 20).to_pylist()]
            # the lengths make the concatenation unambiguous
            sha.update("".join(f"{len(text)}:{text}" for text in texts).encode())
        return sha.hexdigest()

    def _cast(self, ids: pa.Array) -> pa.Array:
        try:
            return ids.cast(self.ids.type)
        except pa.ArrowException as error:
            raise DataError(
                f"ids of type {ids.type} do not fit a vocabulary of {self.ids.type} ({error}); "
                "give both the same type, or prepare the data again"
            ) from None

    def save(self, path: Path) -> None:
        """Writes the ids of rows 1, 2, ... as the column `id` of a Parquet file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"id": self.ids}), path, compression="zstd")

    @staticmethod
    def load(path: Place) -> Vocabulary:
        """Reads what `save` wrote.

        Raises:
            DataError: The file is missing, is not Parquet, or has no column `id` of integers or strings; or an id is
                null or repeated.
        """
        if path.is_dir():
            raise DataError(f"{path}: is a folder, as Spark writes; order it by row and replace it by its only part")
        try:
            ids = pq.read_table(local_copy(path), columns=["id"]).column("id").combine_chunks()
        except (OSError, KeyError, pa.ArrowException) as error:
            why = " ".join(str(error).split())
            raise DataError(f"{path}: cannot be read as a vocabulary (one column `id`): {why}") from None
        if not any(fits(ids.type) for fits in (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string)):
            raise DataError(f"{path}: column id: the type is {ids.type}; write the original ids as int64 or string")
        if len(pc.unique(ids)) != len(ids) or ids.null_count:
            raise DataError(f"{path}: column id: an id is repeated or null; every row needs an id of its own")
        return Vocabulary(ids)
