"""Row groups of an object store, kept on a disk of this machine after they were read once."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from lightning_ccn.data.store_copies import address_digest
from lightning_ccn.data.store_path import StorePath

log = logging.getLogger(__name__)


class RowGroupCache:
    """The row groups of one part that this machine has. Any number of processes may read and write them.

    A file appears under its name when it is whole and on the disk, so a crash at any time leaves none that is broken.
    Its folder is named by size and time of the part: what another version of the part had is never read, and removed.

    Args:
        folder: The folder of all parts.
        part: The part.
    """

    def __init__(self, folder: Path, part: StorePath) -> None:
        size, time_of_change = part.stat()
        self._of_part = folder / "row_groups" / address_digest(part)
        self._folder = self._of_part / f"{size}-{time_of_change}"
        self._writes = True

    def get(self, row_group: int, columns: Sequence[str]) -> pa.Table | None:
        """The columns of a row group, in their order; None if they are not here."""
        path = self._path(row_group, columns)
        try:
            with pa.memory_map(str(path)) as file:
                found: pa.Table = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(use_threads=False)).read_all()
            return found
        except FileNotFoundError:
            return None
        except (OSError, pa.ArrowException):  # of a disk that has lost it
            with contextlib.suppress(OSError):
                path.unlink()
            return None

    def put(self, row_group: int, columns: Sequence[str], table: pa.Table) -> None:
        """Keeps the columns of a row group; a disk that is full, or not to be written, ends that with one warning."""
        if not self._writes:
            return
        path = self._path(row_group, columns)
        unfinished = path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}")
        try:
            if not self._folder.is_dir():
                self._make_folder()
            with open(unfinished, "wb") as file:
                options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
                with pa.ipc.new_file(file, table.schema, options=options) as writer:
                    writer.write_table(table)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except OSError as error:
            self._writes = False
            with contextlib.suppress(OSError):
                unfinished.unlink()
            log.warning("%s: nothing more is kept here: %s; reading goes on from the store", path, error.strerror)

    def _path(self, row_group: int, columns: Sequence[str]) -> Path:
        of_columns = hashlib.sha256("\n".join(columns).encode()).hexdigest()[:8]
        return self._folder / f"{row_group}-{of_columns}.arrow"

    def _make_folder(self) -> None:
        others = list(self._of_part.iterdir()) if self._of_part.is_dir() else []
        self._folder.mkdir(parents=True, exist_ok=True)
        for other in others:
            if other != self._folder:
                shutil.rmtree(other, ignore_errors=True)
