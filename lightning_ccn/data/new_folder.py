"""A folder that appears when it is complete, and that one process writes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_ccn.data.file_lock import FileLock, HeldError
from lightning_ccn.data.places import on_disk
from lightning_ccn.data.store_path import StorePath
from lightning_ccn.errors import DataError

PLAN = "plan.json"  # the file in an unfinished folder by which a work that can go on says what it makes
OWNER = ".owner"  # the file in an unfinished folder that shows whose it is


def part_of(folder: Path) -> Path:
    """Where a folder is written: hidden beside it, so that it can be renamed."""
    named = folder if folder.name not in ("", "..") else Path(os.path.abspath(folder))
    return named.with_name(f".{named.name}.part")


@contextmanager
def naming(folder: Path | StorePath) -> Iterator[None]:
    """Within it, an error of the disk that names no file, as that of a full disk, names the folder."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(folder)) from error


class NewFolder:
    """Makes this process the one that writes a folder. What a killed process has left of it is removed.

    Args:
        folder: The folder; it must be empty or not exist.
        otherwise: What to do if it is not empty, for the message.
        goes_on: Whether what another process has left in `part` is the beginning of the same work, and stays.

    Attributes:
        part: Where to write its files, until `finish`.

    Raises:
        DataError: The folder is not empty or an address of a store, another process writes it, or `part` was made by
            nobody of this program.
    """

    def __init__(self, folder: Path, otherwise: str, goes_on: Callable[[Path], bool] = lambda part: False) -> None:
        on_disk(folder, "a new folder")
        self.folder, self.part = folder, part_of(folder)
        refuse_filled(folder, otherwise)
        owner = self.part / OWNER
        if self.part.exists() and not owner.is_file() and (self.part.is_file() or any(self.part.iterdir())):
            raise DataError(f"{self.part}: move it away; {folder} is first written there, and this was made by others")
        try:
            self.part.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder}: cannot be made: {error.strerror}; name another folder") from None
        try:
            self._lock = FileLock(owner)
        except (HeldError, FileNotFoundError) as error:
            who = str(error) if isinstance(error, HeldError) else "another process"
            raise DataError(f"{folder}: {who} is writing this folder; wait for its end, or name another") from None
        try:
            refuse_filled(folder, otherwise)  # by a process that has finished just now
            if not self._lock.is_at(owner):
                raise DataError(f"{folder}: another process was writing this folder; try again")
        except DataError:
            self._lock.release()
            raise
        for left in () if goes_on(self.part) else self.part.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            elif left != owner:
                left.unlink()

    def finish(self) -> None:
        """Gives the folder its name.

        Raises:
            DataError: It was filled meanwhile.
        """
        try:
            os.replace(self.part, self.folder)  # also over an empty folder
        except OSError as error:
            raise DataError(
                f"{self.folder}: cannot be made: {error.strerror}; what was written is in {self.part}"
            ) from None
        (self.folder / OWNER).unlink()
        self._lock.release()

    def leave(self) -> None:
        """Ends this process's work and keeps what it has written, so that another one can go on with it."""
        self._lock.release()

    def discard(self) -> None:
        """Removes what was written; nothing if it is finished."""
        if self._lock.is_at(self.part / OWNER):
            shutil.rmtree(self.part, ignore_errors=True)
        self._lock.release()


def is_of(folder: Path, plan: Mapping[str, Any]) -> bool:
    """Whether an unfinished folder has a file `PLAN` that says this, so that what is in it can be gone on with."""
    try:
        return bool(json.loads((folder / PLAN).read_text()) == plan)
    except (OSError, ValueError):
        return False


def refuse_filled(folder: Path, otherwise: str) -> None:
    """Checks that a folder is empty or does not exist.

    Raises:
        DataError: It holds something, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file, and a folder is to be made there; {otherwise}")
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(f"{folder}: exists and is not empty; {otherwise}")
