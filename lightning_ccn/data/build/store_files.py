"""The files of a log in a store, as DuckDB reads them: through pyarrow, because its own extension is a download."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

from fsspec import AbstractFileSystem

from lightning_ccn.data.store_errors import retried
from lightning_ccn.data.store_path import StorePath


class StoreFiles(AbstractFileSystem):
    """Files by their address without options; no others are found.

    Args:
        scheme: The kind of their stores, such as `s3`.
    """

    cachable = False  # fsspec would give another engine the files of this one

    def __init__(self, scheme: str) -> None:
        super().__init__()
        self.protocol = scheme
        self._paths: dict[str, StorePath] = {}

    def add(self, path: StorePath) -> None:
        """Makes a file known."""
        self._paths[path.address] = path

    def open(self, path: str, *_: object, **__: object) -> io.RawIOBase:
        """A file, for reading at any place."""
        return _StoreFile(self._paths[self._strip_protocol(path)])

    def info(self, path: str, **_: object) -> dict[str, Any]:
        """Name and size of a file."""
        name = self._strip_protocol(path)
        return {"name": name, "size": self._paths[name].stat().st_size, "type": "file"}

    def exists(self, path: str, **_: object) -> bool:
        """Whether there is such a file."""
        return self._strip_protocol(path) in self._paths

    def isfile(self, path: str) -> bool:
        """Whether there is such a file."""
        return self.exists(path)

    def glob(self, path: str, **_: object) -> list[str]:
        """The file: patterns have become files before, and its name may have a `*` in it."""
        return [self._strip_protocol(path)] if self.exists(path) else []

    def modified(self, path: str) -> datetime:
        """The time of a file's last change."""
        return datetime.fromtimestamp(self._paths[self._strip_protocol(path)].stat().st_mtime_ns / 1e9, UTC)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path


class _StoreFile(io.RawIOBase):
    """A file of a store, in which a read that fails is tried again."""

    def __init__(self, path: StorePath) -> None:
        self._path, self._at, self._size = path, 0, path.stat().st_size
        self._file = retried(path.open, str(path))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._at)
        found: bytes = retried(lambda: self._file.read_at(wanted, self._at), str(self._path)) if wanted > 0 else b""
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)
