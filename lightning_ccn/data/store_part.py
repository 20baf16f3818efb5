"""A Parquet part in an object store: read by row group, again after an error that passes, and from a cache."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from lightning_ccn.data.row_group_cache import RowGroupCache
from lightning_ccn.data.store_errors import retried
from lightning_ccn.data.store_path import StorePath


class StorePart(pq.ParquetFile):
    """A part, open for reading; its footer is read at once.

    Args:
        path: Its address. Row groups are kept in its `cache`, if it has one.

    Raises:
        DataError: It cannot be read.
        ArrowException: It is no Parquet file.
    """

    def __init__(self, path: StorePath) -> None:
        self._path = path
        # `pre_buffer` fetches all columns of a row group in few requests that wait at the same time
        retried(lambda: super(StorePart, self).__init__(path.open(), pre_buffer=True), str(path))
        self._cache = None if path.cache is None else RowGroupCache(path.cache, path)

    def read_row_group(self, i: int, columns: Sequence[str] | None = None, use_threads: bool = False) -> pa.Table:
        """The columns of a row group, in the order of the file.

        Raises:
            DataError: It cannot be read.
        """
        names = self.schema_arrow.names if columns is None else list(columns)
        if self._cache is not None and (found := self._cache.get(i, names)) is not None:
            return found
        read = super().read_row_group
        table: pa.Table = retried(
            lambda: read(i, columns=names, use_threads=use_threads), f"{self._path}: row group {i}"
        )
        if self._cache is not None:
            self._cache.put(i, names, table)
        return table

    def close(self, force: bool = True) -> None:
        """Lets go of the file, which the constructor has opened."""
        super().close(force)
