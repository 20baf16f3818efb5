"""A folder in a store that one process begins and ends, and that is whole once it says so."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime

from lightning_ccn.data.store_path import StorePath
from lightning_ccn.errors import DataError

WHOLE = "_SUCCESS"  # the file of a folder that is whole, as Spark and Hadoop write it
BEGUN = "_BEGUN"  # the file of a folder that is being written; it names the process


class NewStoreFolder:
    """Makes a folder the one that this process, and those it works with, write.

    A store has neither locks nor a rename, so what a killed process has left is not removed: it may be alive.

    Args:
        folder: The folder; there must be no file in it.
        otherwise: What to do if there is one, for the message.

    Raises:
        DataError: There is a file in it, or it cannot be written.
    """

    def __init__(self, folder: StorePath, otherwise: str) -> None:
        self.folder = folder
        refuse_filled_store(folder, otherwise)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        (folder / BEGUN).write_text(f"process {os.getpid()} on {platform.node()} since {now}\n")

    def finish(self) -> None:
        """Says that the folder is whole.

        Raises:
            DataError: It cannot be written.
        """
        (self.folder / WHOLE).write_text("")
        (self.folder / BEGUN).unlink()

    def discard(self) -> None:
        """Removes what was written, if the store allows it; the folder is not whole in any case."""
        try:
            for path in self.folder.files():
                path.unlink()
        except DataError:
            return


def refuse_filled_store(folder: StorePath, otherwise: str) -> None:
    """Checks that there is no file in a folder.

    Raises:
        DataError: There is one; or the store cannot be read.
    """
    folder.refuse_missing()
    if (folder / BEGUN).is_file():
        who = (folder / BEGUN).read_text().strip()
        raise DataError(f"{folder}: {who} began to write it, and has not finished; wait for its end, or {otherwise}")
    if found := folder.files():
        raise DataError(f"{folder}: exists and is not empty: it has {found[0].relative_to(folder)}; {otherwise}")
