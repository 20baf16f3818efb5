"""Where a file or folder is: on a file system, or in a store."""

from __future__ import annotations

import re
from pathlib import Path

from lightning_ccn.data.store_path import URI, StorePath
from lightning_ccn.errors import DataError

Place = Path | StorePath


def place(name: str | Place) -> Place:
    """A path on this machine, or an address in a store; `file:///folder` is a path.

    Raises:
        DataError: It is an address that no store has.

    >>> place("data/world"), place("file:///data/world"), place("s3://bucket/world")
    (PosixPath('data/world'), PosixPath('/data/world'), StorePath('s3://bucket/world'))
    """
    if isinstance(name, StorePath):
        return name
    if not is_address(name):
        return Path(name)
    if (local := re.fullmatch(r"file:/+(.*)", str(name))) is not None:
        return Path("/", local[1])
    return StorePath(str(name))


def is_address(name: object) -> bool:
    """Whether a name is the address of a store, also one that a `Path` has taken a slash from.

    >>> is_address("s3://bucket/folder"), is_address(Path("s3://bucket/folder")), is_address("data/day=1")
    (True, True, False)
    """
    return URI.fullmatch(str(name)) is not None


def on_disk(name: str | Place, what: str, option: str = "") -> Path:
    """A path on this machine.

    Args:
        name: What the user gave.
        what: What it is, for the message.
        option: The option that it was given with, for the message.

    Raises:
        DataError: It is an address of a store.
    """
    path = name if isinstance(name, Path) and not is_address(name) else place(_with_slashes(name))
    if isinstance(path, Path):
        return path
    raise DataError(
        f"{path}: is an address of a store, and {what} must be on a file system: "
        + (f"name a folder on a disk with {option}" if option else "name a folder on a disk")
    )


def _with_slashes(name: object) -> str:
    return re.sub(r"^([a-z][a-z0-9+.-]+):/(?!/)", r"\1://", str(name))
