"""A folder of this machine that moves to a store."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lightning_ccn.data.new_store_folder import NewStoreFolder
from lightning_ccn.data.parquet import FILES_AT_ONCE
from lightning_ccn.data.store_path import StorePath
from lightning_ccn.errors import DataError


def move_to_store(folder: Path, to: StorePath, last: str, otherwise: str) -> int:
    """Uploads a folder, and removes it from this machine.

    Args:
        folder: The folder; it stays where it is if anything fails.
        to: Where to; there must be no file in it.
        last: Name of the file without which the folder is not whole: it is uploaded after all others.
        otherwise: What to do if there is a file in `to`, for the message.

    Returns:
        The number of files.

    Raises:
        DataError: The store cannot be written, or another process writes the folder.
    """
    new = NewStoreFolder(to, otherwise)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / last)

    def upload(path: Path) -> None:
        (to / path.relative_to(folder).as_posix()).write(path)

    try:
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            list(pool.map(upload, files))
        upload(folder / last)
        new.finish()
    except DataError as error:
        new.discard()
        raise DataError(f"{error}; what was to be uploaded is in {folder}, and the same command uploads it") from None
    shutil.rmtree(folder)
    return len(files) + 1
