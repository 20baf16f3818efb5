"""`Package`: the folder that `ccn export` writes, opened for scoring.

Large arrays are memory-mapped: 80 million rows open at once, and processes on a machine share their pages::

    package.json      `Manifest`; written last, so a folder without it is incomplete
    request.json      what a request is, as a JSON Schema
    model.onnx        the graph; model.pt2 is the same, compiled for this kind of CPU
    tables/           rows of the embedding tables: NAME.values.npy, and NAME.scale.npy of int8
    items/            a value for each row of the item table: ATTRIBUTE.npy; of an attribute with many values, all of
                      them, and ATTRIBUTE.offsets.npy, where those of each row begin
    vectors/          frozen vectors of items: NAME.npy
    ids/              where the log's ids are in a table: TABLE.*.npy, see `id_lookup`
    vocabulary/       the log's ids in the order of a table's rows, Parquet
    examples.json     requests to try, from a split of the data: a body for `ccn serve`; not in a package that was
                      compared on no page, or whose item ids nobody can name
    schema.yaml       the schema of the data
    README.md         the model card
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from lightning_ccn.data.ragged import Ragged
from lightning_ccn.serving.errors import PackageError
from lightning_ccn.serving.id_lookup import CHECK, HASH, ROW, START, IdLookup
from lightning_ccn.serving.manifest import FORMAT, FileEntry, Manifest

MANIFEST, GRAPH, COMPILED = "package.json", "model.onnx", "model.pt2"
REQUEST, EXAMPLES = "request.json", "examples.json"
DIGESTED = 64 << 20  # bytes: larger files are compared by size alone when a package is opened
AGAIN = "export the checkpoint again"


@dataclass(frozen=True)
class StoredTable:
    """Rows of an embedding table on disk.

    Attributes:
        values: Float32, float16 or int8 [rows, dim].
        scale: Float32 [rows], the factor of each int8 row; None for floats.
    """

    values: np.ndarray
    scale: np.ndarray | None = None

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n, dim] for int [n]."""
        values: np.ndarray = self.values[rows].astype(np.float32, copy=False)
        return values if self.scale is None else values * self.scale[rows, None]


class Package:
    """An opened package.

    Args:
        folder: The folder.

    Raises:
        PackageError: It is no package, is of another format, or a file is missing or not what was written.
    """

    def __init__(self, folder: str | Path) -> None:
        if not isinstance(folder, str | Path):
            raise PackageError(f"{folder!r} is not a path; name a folder that `ccn export` has written")
        self.folder = Path(folder)
        self.manifest = _read_manifest(self.folder)
        for name, entry in self.manifest.files.items():
            _check_file(self.folder / name, entry)

    @cached_property
    def tables(self) -> Mapping[str, StoredTable]:
        """The stored tables by name."""
        with_scale = self.manifest.table_dtype == "int8"
        return {
            name: StoredTable(self._array(f"tables/{name}.values"), self._array(f"tables/{name}.scale"))
            if with_scale
            else StoredTable(self._array(f"tables/{name}.values"))
            for name in {feature.stored for feature in (*self.manifest.user, *self.manifest.item)}
        }

    @cached_property
    def attributes(self) -> Mapping[str, np.ndarray]:
        """Item attributes with one value, by name: int32 [rows of the item table]."""
        return {f.name: self._array(f"items/{f.name}") for f in self.manifest.item[1:] if not f.many}

    @cached_property
    def attribute_lists(self) -> Mapping[str, Ragged]:
        """Item attributes with many values, by name: [rows of the item table]."""
        return {
            f.name: Ragged(self._array(f"items/{f.name}"), self._array(f"items/{f.name}.offsets"))
            for f in self.manifest.item[1:]
            if f.many
        }

    @cached_property
    def ratios(self) -> list[np.ndarray]:
        """The numbers of `ratio_to_trigger`: float32 [rows of the item table] each, NaN where unknown."""
        return [self._array(f"items/{name}") for name in self.manifest.ratio_to_trigger]

    @cached_property
    def vectors(self) -> list[np.ndarray]:
        """Frozen vectors: floats [rows of the item table, width] each."""
        return [self._array(f"vectors/{name}") for name in self.manifest.vectors]

    @cached_property
    def crosses(self) -> np.ndarray | None:
        """Float32 [rows], the weights of Wide & Deep's crossed ids."""
        return None if self.manifest.crosses is None else self._array("tables/crosses.values")

    @cached_property
    def ids(self) -> Mapping[str, IdLookup]:
        """Where the log's ids are in each table."""
        found = {}
        for name, entry in self.manifest.tables.items():
            parts = [part for part in (HASH, ROW, START, CHECK) if (self.folder / f"ids/{name}.{part}.npy").is_file()]
            arrays = {part: self._array(f"ids/{name}.{part}") for part in parts}
            found[name] = IdLookup(name, entry.rows, entry.kind, arrays)
        return found

    def _array(self, name: str) -> np.ndarray:
        path = self.folder / f"{name}.npy"
        try:
            array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise PackageError(f"{path}: cannot be read ({error}); {AGAIN}") from None
        return array


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise PackageError(
            f"{folder}: is not a package, since it has no {MANIFEST}; name a folder that `ccn export` has written"
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        plain = json.loads(content)
        if (found := plain["format"]) != FORMAT:
            raise PackageError(
                f"{path}: the package has format {found!r:.20}, and this version serves format {FORMAT}; {AGAIN} "
                "with this version, or serve it with the one that wrote it"
            )
        return Manifest.from_json(content.decode())
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        if isinstance(error, PackageError):
            raise
        raise PackageError(f"{path}: is damaged ({error}); {AGAIN}") from None


def _check_file(path: Path, entry: FileEntry) -> None:
    try:
        if not path.is_file():
            raise PackageError(f"{path}: is missing; copy the whole package, or {AGAIN}")
        if (size := path.stat().st_size) != entry.bytes:
            raise PackageError(f"{path}: has {size:,} bytes instead of {entry.bytes:,}; copy the package, or {AGAIN}")
        same = size > DIGESTED or sha256_of(path) == entry.sha256
    except OSError as error:
        raise _unreadable(path, error) from None
    if not same:
        raise PackageError(f"{path}: is not the file that was written; copy the package, or {AGAIN}")


def _unreadable(path: Path, error: OSError) -> PackageError:
    return PackageError(f"{path}: cannot be read: {error.strerror}; let this user read the whole package")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
