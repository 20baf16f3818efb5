"""Files and folders in an object store, named by a URI and reached through `pyarrow.fs`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from copy import copy
from functools import partial, total_ordering
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pyarrow as pa
from pyarrow import fs

from lightning_ccn.data.store_connection import connection
from lightning_ccn.data.store_errors import NO_BUCKET, retried
from lightning_ccn.errors import DataError

URI = re.compile(r"([a-z][a-z0-9+.-]+):(/+)([^/?]*)([^?]*)(\?.*)?")
CHUNK = 8 << 20  # bytes of a file that are read at once


class Stat(NamedTuple):
    """Size in bytes, and the time of the last change in nanoseconds; as of `os.stat`."""

    st_size: int
    st_mtime_ns: int


@total_ordering
class StorePath:
    """A file or folder in an object store, with those methods of `Path` that a dataset folder needs.

    All of them but `open` try again after a passing error, see `store_errors.retried`.

    Args:
        uri: Its address, such as `s3://bucket/folder`; options of pyarrow may follow a `?`.
        cache: A folder of this machine for what is read; None: nothing but what `local_copy` copies is kept.

    Attributes:
        store: The address of its store, such as `s3://bucket`.
        path: The path in the store, from `/` on.
        options: Options of pyarrow, from `?` on, or "".
        cache: See above.
        known: Its size and time, once they are known.

    Raises:
        DataError: It is not the URI of a store, or has a password in it.
    """

    def __init__(self, uri: str, cache: Path | None = None) -> None:
        found = URI.fullmatch(uri)
        if not found or not (found[3] or found[1] == "hdfs") or len(found[2]) < 2:
            raise DataError(f"{uri}: is not an address such as s3://bucket/folder")
        if re.search(r"[^/@]*:[^/@]*@", found[3]):
            raise DataError(
                f"{found[1]}://***@{found[3].rpartition('@')[2]}: there is a key in the address, which every run would "
                "save; give it in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), or as pyarrow takes it"
            )
        default = len(found[2]) == 3  # hdfs:///folder: the cluster of Hadoop's configuration
        self.store, self.options = f"{found[1]}://{'' if default else found[3]}", found[5] or ""
        self.path = PurePosixPath(f"/{found[3]}{found[4]}" if default else f"/{found[4].lstrip('/')}")
        self.cache = cache
        self.known: Stat | None = None

    def __str__(self) -> str:
        return f"{self.address}{self.options}"

    def __repr__(self) -> str:
        return f"StorePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StorePath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __lt__(self, other: StorePath) -> bool:
        return (self.store, self.path) < (other.store, other.path)

    def __truediv__(self, name: str | PurePosixPath) -> StorePath:
        return self._at(self.path / name)

    @property
    def address(self) -> str:
        """Its URI without the options of pyarrow."""
        return f"{self.store}{self.path if self.path.name else ''}"

    @property
    def scheme(self) -> str:
        """The kind of its store, such as `s3`."""
        return self.store.partition(":")[0]

    @property
    def name(self) -> str:
        """The last part of the path; "" for a bucket."""
        return self.path.name

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return self.path.stem

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return self.path.suffix

    @property
    def parts(self) -> tuple[str, ...]:
        """The store, and the names from the bucket down."""
        return (self.store, *self.path.parts[1:])

    @property
    def parent(self) -> StorePath:
        """The folder that it is in."""
        return self._at(self.path.parent)

    def cached_in(self, cache: Path | None) -> StorePath:
        """The same place, with another folder for what is read."""
        made = copy(self)
        made.cache = cache
        return made

    def relative_to(self, folder: StorePath) -> PurePosixPath:
        """Its path within a folder of the same store."""
        return self.path.relative_to(folder.path)

    def resolve(self) -> StorePath:
        """Itself: an address is absolute, and there are no links."""
        return self

    def is_file(self) -> bool:
        """Whether there is a file of this name."""
        return self._type() == fs.FileType.File

    def is_dir(self) -> bool:
        """Whether there is a folder of this name, or any file in it."""
        return self._type() == fs.FileType.Directory

    def exists(self) -> bool:
        """Whether there is a file or a folder of this name."""
        return self._type() != fs.FileType.NotFound

    def stat(self) -> Stat:
        """Its size and time.

        Raises:
            DataError: There is no such file.
        """
        if self.known is None:
            info = self._info()
            if info.type != fs.FileType.File:
                raise DataError(f"{self}: no such file")
            self.known = _stat(info)
        return self.known

    def files(self) -> list[StorePath]:
        """All files in the folder and its subfolders, ordered by path, with their sizes; none if there is no folder."""
        return sorted(path for path, kind in self._list(recursive=True) if kind == fs.FileType.File)

    def iterdir(self) -> Iterator[StorePath]:
        """The files and folders in the folder."""
        return (path for path, _ in self._list(recursive=False))

    def glob(self, ending: str) -> Iterator[StorePath]:
        """The files in the folder whose names have an ending, such as `*.parquet`; no other pattern."""
        files = (path for path, kind in self._list(recursive=False) if kind == fs.FileType.File)
        return (path for path in files if path.name.endswith(ending.removeprefix("*")))

    def open(self, mode: str = "rb") -> pa.NativeFile:
        """The file, for reading at any place; an error of the store is an OSError here, and when it is read."""
        store, path = self._where()
        return store.open_input_file(path)

    def open_stream(self) -> pa.NativeFile:
        """The file, unpacked if its name ends in .gz or .zst, for reading from its beginning; errors as of `open`."""
        store, path = self._where()
        return store.open_input_stream(path, compression="detect", buffer_size=CHUNK)

    def read_text(self) -> str:
        """Its contents.

        Raises:
            DataError: It cannot be read, or is not UTF-8.
        """

        def read() -> bytes:
            with self.open() as file:
                found: bytes = file.read()
                return found

        try:
            return retried(read, str(self)).decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{self}: not UTF-8: {error}") from None

    def write_text(self, text: str) -> None:
        """Replaces its contents; readers see the old ones or the new ones.

        Raises:
            DataError: It cannot be written.
        """
        self.write(text.encode())

    def write(self, contents: bytes | Path) -> None:
        """Replaces its contents by bytes, or by those of a file on this machine.

        Raises:
            DataError: It cannot be written.
        """
        size = contents.stat().st_size if isinstance(contents, Path) else len(contents)

        def write() -> None:
            store, path = self._where()
            with store.open_output_stream(path, compression=None) as to:
                if isinstance(contents, bytes):
                    to.write(contents)
                else:
                    with open(contents, "rb") as source:
                        while chunk := source.read(CHUNK):
                            to.write(chunk)
            if (there := store.get_file_info(path).size) != size:  # an upload that was cut off may look whole
                raise OSError(f"{there} of {size} bytes have arrived")

        retried(write, str(self), "written")
        self.known = None

    def unlink(self) -> None:
        """Removes the file, if there is one."""

        def remove() -> None:
            store, path = self._where()
            if store.get_file_info(path).type == fs.FileType.File:
                store.delete_file(path)

        retried(remove, str(self), "removed")

    def copy_to(self, file: Path) -> None:
        """Copies the file to this machine; after an error, it goes on where it was.

        Raises:
            DataError: It cannot be read.
            OSError: `file` cannot be written.
        """
        size = self.stat().st_size
        source = retried(self.open, str(self))
        with source, open(file, "wb") as to:
            for at in range(0, size, CHUNK):
                to.write(retried(partial(_read, source, at, min(CHUNK, size - at)), str(self)))
            to.flush()
            os.fsync(to.fileno())

    def refuse_missing(self) -> None:
        """Checks that its bucket is there, and that it may be read.

        Raises:
            DataError: It is not, or the store cannot be reached.
        """
        if self.path.name and not self._at(PurePosixPath("/")).exists():
            raise DataError(f"{self}: {NO_BUCKET}")

    def _at(self, path: PurePosixPath, stat: Stat | None = None) -> StorePath:
        made = copy(self)  # and not by a URI: a name may have a `?` in it
        made.path, made.known = path, stat
        return made

    def _where(self) -> tuple[fs.FileSystem, str]:
        """The file system, of this process, and the path in it."""
        store, root = connection(self.store, self.options)
        return store, f"{root.rstrip('/')}{self.path}".rstrip("/") or "/"

    def _info(self) -> fs.FileInfo:
        def look() -> fs.FileInfo:
            store, path = self._where()
            return store.get_file_info(path)

        return retried(look, str(self))

    def _type(self) -> fs.FileType:
        return self._info().type

    def _list(self, recursive: bool) -> list[tuple[StorePath, fs.FileType]]:
        def look() -> tuple[str, list[fs.FileInfo]]:
            store, path = self._where()
            return path, store.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=recursive))

        path, found = retried(look, str(self))
        inside = len(path.rstrip("/")) + 1
        names = [(info, info.path[inside:]) for info in found]
        return [(self._at(self.path / name, _stat(info)), info.type) for info, name in names if name]


def _stat(info: fs.FileInfo) -> Stat:
    return Stat(info.size or 0, info.mtime_ns or 0)


def _read(file: pa.NativeFile, at: int, size: int) -> bytes:
    found: bytes = file.read_at(size, at)
    if len(found) != size:
        raise OSError(f"{len(found)} of {size} bytes have arrived")
    return found
