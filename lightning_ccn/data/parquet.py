"""Parquet row groups as numpy arrays."""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lightning_ccn.data.places import Place
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.store_copies import local_copy
from lightning_ccn.data.store_part import StorePart
from lightning_ccn.data.store_path import StorePath
from lightning_ccn.errors import DataError

PageRows = Mapping[str, np.ndarray | Ragged]  # page rows by column; [pages] each
NULL = np.iinfo(np.int64).min  # what a null integer decodes to: never a valid id, click or time

ENDING = ".parquet"
FILES_AT_ONCE = 16  # whose ends are read at the same time: a file system over a network takes its time for each
BESIDE_DATA = (".crc", ".md")  # checksums and notes, which nobody takes for data


@overload
def parts_of(folder: Path) -> list[Path]: ...
@overload
def parts_of(folder: StorePath) -> list[StorePath]: ...
def parts_of(folder: Place) -> list[Path] | list[StorePath]:
    """The Parquet files of a split, in its folder and all subfolders (Spark: `day=1/`), ordered by path.

    Names that begin with `_` or `.` are left out, as Spark does. Every other file must be a part: data that is silently
    not read is silently missing.

    Args:
        folder: The folder of a split; a folder that does not exist has no parts.

    Raises:
        DataError: A file's name does not end in `.parquet`, or a folder cannot be read.
    """
    if isinstance(folder, StorePath):
        return [path for path in folder.files() if _is_part(path.relative_to(folder), path)]
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; a split is a folder of {ENDING} files")
    found, seen = [], set()
    for at, folders, names in os.walk(folder, onerror=_unreadable, followlinks=True):
        place = Path(at)
        if (real := os.path.realpath(at)) in seen:
            raise DataError(f"{place}: a link to a folder whose files are read already; they would count twice")
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(("_", "."))]
        found += [place / name for name in names if _is_part(PurePosixPath(name), place / name)]
    return sorted(found)


def _is_part(inside: PurePosixPath, path: Place) -> bool:
    """Whether a file is to be read: not if its name, or that of a folder on the way to it, says so."""
    if any(name.startswith(("_", ".")) for name in inside.parts) or inside.name.endswith(BESIDE_DATA):
        return False
    if not inside.name.endswith(ENDING):
        remedy = f"write Parquet files whose names end in {ENDING}, or begin the name with _ to leave it out"
        raise DataError(f"{path}: not read, because its name does not end in {ENDING}; {remedy}")
    return True


def _unreadable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # a split may be missing
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); give yourself the right to read it")


@contextmanager
def open_part(path: Place, copied: bool = False) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file; reading errors within the `with` block become DataErrors that name the file.

    Args:
        path: The file.
        copied: Whether a file of a store is read through a copy on this machine, see `local_copy`.

    Raises:
        DataError: The file is missing, truncated or corrupt, or a requested column is corrupt.
    """
    with _errors_of(path), _opened(local_copy(path) if copied else path) as file:
        yield file


class OpenParts:
    """Parquet files that stay open: a footer describes every row group of its file, so it is read once, not each time.

    Args:
        most: How many stay open; the one that was used least recently is closed.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._files: OrderedDict[Place, pq.ParquetFile] = OrderedDict()

    @contextmanager
    def __call__(self, path: Place) -> Iterator[pq.ParquetFile]:
        """Like `open_part`, but the file stays open."""
        with _errors_of(path):
            if path not in self._files:
                self._files[path] = _opened(path)
            self._files.move_to_end(path)
            while len(self._files) > self.most:
                self._files.popitem(last=False)[1].close()
            yield self._files[path]


def _opened(path: Place) -> pq.ParquetFile:
    return StorePart(path) if isinstance(path, StorePath) else pq.ParquetFile(path)


@contextmanager
def _errors_of(path: Place) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):  # too many open files: not the part's fault
            raise
        why = " ".join(str(error).split())
        raise DataError(f"{path}: not a complete Parquet file; write it again ({why})") from None


def decode(file: pq.ParquetFile, row_group: int, columns: Sequence[str]) -> dict[str, np.ndarray | Ragged]:
    """Decodes one row group to numpy arrays.

    A null list becomes an empty list, a null float becomes NaN, and a null integer becomes `NULL`, which `check_rows`
    rejects.

    Args:
        file: A file opened by `open_part`.
        row_group: Number of the row group in the file.
        columns: Columns to decode; the file must have each of them.

    Returns:
        An array [pages] or a `Ragged` [pages] per column, with the stored dtype.
    """
    # no threads: workers are one process each, and a decoder's threads would get in the way of the training's
    table = file.read_row_group(row_group, columns=list(columns), use_threads=False)
    return {name: _column(table.column(name)) for name in columns}


def list_column(rows: PageRows, name: str) -> Ragged:
    """A column that is a list column by the schema."""
    column = rows[name]
    assert isinstance(column, Ragged), f"{name} is a list column"
    return column


def value_column(rows: PageRows, name: str) -> np.ndarray:
    """A column that has one value per page by the schema."""
    column = rows[name]
    assert isinstance(column, np.ndarray), f"{name} is not a list column"
    return column


def _column(column: pa.ChunkedArray) -> np.ndarray | Ragged:
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        return _values(column)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    return Ragged.from_lengths(_values(pc.list_flatten(column)), lengths)


def _values(column: pa.ChunkedArray) -> np.ndarray:
    if column.null_count and pa.types.is_integer(column.type):
        column = pc.fill_null(column.cast(pa.int64()), NULL)
    return column.to_numpy()
