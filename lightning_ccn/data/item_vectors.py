"""Frozen vectors of items, in files beside items.parquet that all processes of a machine share in memory.

A file is vectors/NAME.npy, of float32 or float16 [rows of the item table, width]. Row 0, the unknown item, is zeros,
and so is the row of any other item without a vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.lib.format import open_memmap

from lightning_ccn.data.page_row import ITEM
from lightning_ccn.data.places import Place
from lightning_ccn.data.schema import Schema
from lightning_ccn.data.store_copies import local_copy
from lightning_ccn.errors import DataError

FOLDER = "vectors"
TYPES = (np.dtype("<f4"), np.dtype("<f2"))
# what numpy's parser of a header raises
UNREADABLE = (OSError, ValueError, EOFError, TypeError, OverflowError, SyntaxError, TokenError)
AT_ONCE = 1 << 24  # values that are looked at together
NOT_FINITE = "has a value that is not finite; write zeros for an item without a vector"


def vector_file(folder: Place, name: str) -> Place:
    """Where the vectors of a name are in a dataset folder."""
    return folder / FOLDER / f"{name}.npy"


def open_vectors(folder: Place, schema: Schema) -> dict[str, np.ndarray]:
    """The vectors of a dataset folder by name, mapped into memory: only what is read takes memory, once on a machine.

    Raises:
        DataError: A file is missing, or has another type or shape than the schema says.
    """
    return {name: open_vector_file(folder, schema, name) for name in schema.vectors}


def open_vector_file(folder: Place, schema: Schema, name: str) -> np.ndarray:
    """The vectors of one name; see `open_vectors`."""
    path, shape = vector_file(folder, name), (schema.tables[ITEM].rows, schema.vectors[name])
    remedy = f"write it with numpy.save as float32 {list(shape)}, row 0 zeros"
    if not path.is_file():
        raise DataError(f"{path}: missing, but vectors of schema.yaml has '{name}'; {remedy}")
    try:
        vectors = np.load(local_copy(path), mmap_mode="r")
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as one array: {' '.join(str(error).split())}; {remedy}") from None
    if not isinstance(vectors, np.ndarray) or vectors.dtype not in TYPES:
        raise DataError(f"{path}: is {getattr(vectors, 'dtype', 'a .npz file')}; {remedy}")
    if vectors.shape != shape:
        raise DataError(
            f"{path}: is {list(vectors.shape)}; {remedy} (tables.item.rows and vectors.{name} of schema.yaml)"
        )
    return vectors


def new_vector_file(folder: Path, name: str, rows: int, width: int) -> np.ndarray:
    """A new file of zeros, float32 [rows, width]; what is written to the array is in the file."""
    path = folder / FOLDER / f"{name}.npy"
    path.parent.mkdir(exist_ok=True)
    return open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, width))


def in_parts(vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Some rows at a time, with the number of the first one."""
    rows = max(AT_ONCE // vectors.shape[1], 1)
    for start in range(0, len(vectors), rows):
        yield start, vectors[start : start + rows]


def vector_problems(vectors: np.ndarray, path: Place) -> Iterator[tuple[str, int]]:
    """What is wrong with the values of a file: a message with the first row that has it, and how many rows have it."""
    if vectors[0].any():
        yield f"{path}: row 0: is not zeros; write zeros for the unknown item", 1
    first, count = 0, 0
    for start, part in in_parts(vectors):
        wrong = np.flatnonzero(~np.isfinite(part).all(1))
        first = start + int(wrong[0]) if len(wrong) and not count else first
        count += len(wrong)
    if count:
        yield f"{path}: row {first}: {NOT_FINITE}", count
