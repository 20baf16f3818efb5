"""Files of a store that are copied to this machine once, because several processes need them whole."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from pathlib import Path

from lightning_ccn.data.file_lock import FileLock, HeldError
from lightning_ccn.data.places import Place
from lightning_ccn.data.store_path import StorePath
from lightning_ccn.errors import DataError

OFTEN = 0.1  # seconds between two looks at whether another process has copied a file


def local_copy(path: Place) -> Path:
    """A file on this machine with the contents of `path`, which is itself if it is on this machine.

    One process copies a file of a store, the others wait for it. A file that changed in the store is copied again.

    Raises:
        DataError: The file cannot be read, or there is no place for a copy.
    """
    if isinstance(path, Path):
        return path
    size, time_of_change = path.stat()
    kept = path.cache or default_cache()
    folder = kept / "files" / f"{address_digest(path)}-{size}-{time_of_change}"
    copy = folder / path.name
    try:
        if not copy.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            _copy(path, copy)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be copied to {folder}: {error.strerror}; make room there, or name another folder with "
            "--data.cache"
        ) from None
    return copy


def default_cache() -> Path:
    """The user's own folder for what can be fetched again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightning_ccn"


def address_digest(path: StorePath) -> str:
    """A name for a folder, of an address."""
    return hashlib.sha256(str(path).encode()).hexdigest()[:16]


def _copy(path: StorePath, to: Path) -> None:
    while True:
        try:
            lock = FileLock(to.with_name(".lock"))
            break
        except HeldError:  # until the other process has copied it, or has ended
            time.sleep(OFTEN)
    unfinished = to.with_name(f".{platform.node()}-{os.getpid()}.part")
    try:
        if not to.is_file():
            path.copy_to(unfinished)
            os.replace(unfinished, to)
    finally:
        unfinished.unlink(missing_ok=True)
        lock.release()
