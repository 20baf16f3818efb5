"""Digests that tell whether a dataset's files are still those that were counted, or that a model was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lightning_ccn.data.parquet import FILES_AT_ONCE, parts_of
from lightning_ccn.data.places import Place
from lightning_ccn.data.store_errors import retried
from lightning_ccn.errors import DataError

FOOTER = 8  # the last bytes of a Parquet file: the length of its footer (4 bytes), then "PAR1"
SMALL = 1 << 20  # bytes of a file that is read completely
SAMPLES = 64  # parts of a larger file without a footer, evenly spread, `SMALL` in all


def file_digest(path: Place) -> str:
    """Digest of a file: of all its bytes if they are few, else of its size and its footer, or of a sample (.npy).

    The footer of a Parquet file has the offset, the compressed size, and the smallest and largest value of every column
    chunk, so a large file with other data has another footer. Vectors that were learnt anew differ in every row. The
    time of the file is left out: a copy of a dataset is the same dataset.

    Raises:
        DataError: The file cannot be read.
    """
    if isinstance(path, Path):
        try:
            return _digest(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return retried(lambda: _digest(path), str(path))


def _digest(path: Place) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        if path.suffix == ".npy" and size > SMALL:
            parts = []
            for at in range(SAMPLES):
                file.seek(at * (size - SMALL // SAMPLES) // (SAMPLES - 1))
                parts.append(file.read(SMALL // SAMPLES))
            return hashlib.sha256(b"%d:" % size + b"".join(parts)).hexdigest()[:16]
        file.seek(max(size - FOOTER, 0))
        length = int.from_bytes(file.read(FOOTER)[:4], "little")
        file.seek(0 if size <= SMALL else max(size - FOOTER - length, 0))
        rest = file.read()
    return hashlib.sha256(b"%d:" % size + rest).hexdigest()[:16]


def file_digests(folder: Place, splits: Iterable[str]) -> dict[str, str]:
    """Digests of items.parquet, vocabularies, vectors and all parts of the splits, by path within the folder."""
    paths: list[Any] = [path for path in (folder / "items.parquet",) if path.is_file()]
    paths += sorted((folder / "vocabulary").glob("*.parquet"))
    paths += sorted((folder / "vectors").glob("*.npy"))
    for split in splits:
        paths += parts_of(folder / split)
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        digests = pool.map(file_digest, paths)
        return {path.relative_to(folder).as_posix(): digest for path, digest in zip(paths, digests, strict=True)}


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """One text for each file that was changed, added or removed."""
    found = []
    for name in sorted(before.keys() | now.keys()):
        if name not in now:
            found.append(f"{name} was removed")
        elif name not in before:
            found.append(f"{name} was added")
        elif before[name] != now[name]:
            found.append(f"{name} was changed")
    return found


def combined(digests: Mapping[str, str]) -> str:
    """One digest of the files of a split, in their order."""
    return hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in digests.items()).encode()).hexdigest()[:16]
