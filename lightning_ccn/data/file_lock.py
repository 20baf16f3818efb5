"""A file that one process holds until it lets go or ends in any way; the file names the process."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
from pathlib import Path


class HeldError(Exception):
    """Another process holds the file; the message names it."""


class FileLock:
    """Makes this process the one that holds a file, which is made if it is missing.

    The lock is of a process and not of an open file: data workers, which are copies of this process, do not keep it.

    Args:
        path: The file, in an existing folder.

    Raises:
        HeldError: Another process holds it.
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a+")  # noqa: SIM115  # it stays open: closing it would release the lock
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return  # a file system without locks
            self._file.seek(0)
            owner = self._file.read().strip() or "another process"
            self._file.close()
            raise HeldError(owner) from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {platform.node()}\n")
        self._file.flush()

    def is_at(self, path: Path) -> bool:
        """Whether this process holds the file at `path`: its last owner may have removed the one that was opened."""
        if self._file.closed:
            return False
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), path.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Lets another process hold the file."""
        self._file.close()
