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
    examples.json     requests to try, from a split of the data; not in a package that was compared on no page
    schema.yaml       the schema of the data
    README.md         the model card
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lightning_ccn.data.ragged import Ragged
from lightning_ccn.serving.errors import PackageError
from lightning_ccn.serving.id_lookup import CHECK, HASH, ROW, START, IdLookup

FORMAT = 1
MANIFEST, GRAPH, COMPILED = "package.json", "model.onnx", "model.pt2"
REQUEST, EXAMPLES = "request.json", "examples.json"
DIGESTED = 64 << 20  # bytes: larger files are compared by size alone when a package is opened
AGAIN = "export the checkpoint again"
LATER_FIELDS = {
    "reads_gaps": False,
    "gives_orders": False,
}  # of package.json, which older packages of this format do not have


@dataclass(frozen=True)
class FeatureEntry:
    """A categorical feature.

    Attributes:
        name: Its name in a request, or of the array in items/.
        table: The table whose ids its values are.
        stored: The table in tables/ that has its rows.
        many: Whether it has any number of values, which are summed.
    """

    name: str
    table: str
    stored: str
    many: bool


@dataclass(frozen=True)
class NumberEntry:
    """A number, and the moments by which it is standardised."""

    name: str
    mean: float
    deviation: float


@dataclass(frozen=True)
class TableEntry:
    """The ids of a table.

    Attributes:
        rows: Number of rows, row 0 for the unknown id.
        kind: See `IdLookup`.
    """

    rows: int
    kind: str


@dataclass(frozen=True)
class FileEntry:
    """A file's size and SHA-256."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What package.json says.

    Attributes:
        format: Of the package.
        version: Of lightning_ccn, which wrote it.
        system: Name of the model's class.
        checkpoint: Digest of the checkpoint's manifest: equal digests mean the same weights.
        exported: When, in UTC.
        table_dtype: Type of the stored rows: fp32, fp16 or int8.
        short_length, long_length: How many behaviours of each sequence are read.
        reads_long: Whether the system reads the long sequence.
        reads_gaps: Whether it reads how long ago behaviours were.
        gives_orders: Whether the model estimates orders too.
        user, item: Categorical features.
        numbers, page_numbers: Numbers of a candidate, and of the page.
        same_as_trigger: Item features that say whether a candidate is like the trigger.
        ratio_to_trigger: Numbers of items, of which a candidate has the logarithm of its ratio to the trigger's.
        category: The attribute by which the long sequence is searched; None: it is not.
        vectors: Names of the items' frozen vectors.
        crosses: Rows of Wide & Deep's table of crossed ids; None in other systems.
        tables: By name in the schema.
        files: By path in the package.
        measured: What the export measured on a split of the data, see `export.measure`.
    """

    format: int
    version: str
    system: str
    checkpoint: str
    exported: str
    table_dtype: str
    short_length: int
    long_length: int
    reads_long: bool
    reads_gaps: bool
    gives_orders: bool
    user: tuple[FeatureEntry, ...]
    item: tuple[FeatureEntry, ...]
    numbers: tuple[NumberEntry, ...]
    page_numbers: tuple[NumberEntry, ...]
    same_as_trigger: tuple[str, ...]
    ratio_to_trigger: tuple[str, ...]
    category: str | None
    vectors: tuple[str, ...]
    crosses: int | None
    tables: dict[str, TableEntry]
    files: dict[str, FileEntry]
    measured: dict[str, Any]

    def to_json(self) -> str:
        """The contents of package.json."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> Manifest:
        """The inverse of `to_json`.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: A field is missing, unknown or of another form.
        """
        plain = {**LATER_FIELDS, **json.loads(text)}
        for name, kind in (("user", FeatureEntry), ("item", FeatureEntry)):
            plain[name] = tuple(kind(**entry) for entry in plain[name])
        for name in ("numbers", "page_numbers"):
            plain[name] = tuple(NumberEntry(**entry) for entry in plain[name])
        for name in ("same_as_trigger", "ratio_to_trigger", "vectors"):
            plain[name] = tuple(plain[name])
        plain["tables"] = {name: TableEntry(**entry) for name, entry in plain["tables"].items()}
        plain["files"] = {name: FileEntry(**entry) for name, entry in plain["files"].items()}
        return Manifest(**plain)


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
        text = path.read_text()
    except OSError:
        raise PackageError(
            f"{folder}: is not a package, since it has no {MANIFEST}; name a folder that `ccn export` has written"
        ) from None
    try:
        plain = json.loads(text)
        if plain["format"] != FORMAT:
            raise PackageError(
                f"{path}: the package has format {plain['format']}, and this version serves format {FORMAT}; {AGAIN} "
                "with this version, or serve it with the one that wrote it"
            )
        known = {field.name for field in fields(Manifest)}
        if unknown := {*plain, *LATER_FIELDS} ^ known:
            raise ValueError(f"{', '.join(sorted(unknown))}: missing, or not known here")
        return Manifest.from_json(text)
    except PackageError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise PackageError(f"{path}: is damaged ({error}); {AGAIN}") from None


def _check_file(path: Path, entry: FileEntry) -> None:
    size = path.stat().st_size if path.is_file() else None
    if size is None:
        raise PackageError(f"{path}: is missing; copy the whole package, or {AGAIN}")
    if size != entry.bytes:
        raise PackageError(f"{path}: has {size:,} bytes instead of {entry.bytes:,}; copy the package, or {AGAIN}")
    if size <= DIGESTED and sha256_of(path) != entry.sha256:
        raise PackageError(f"{path}: is not the file that was written; copy the package, or {AGAIN}")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
