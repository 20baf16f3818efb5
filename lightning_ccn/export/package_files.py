"""The files of a package beside its graph: tables, item attributes, ids, and what a request is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lightning_ccn.data import page_row
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.item_vectors import open_vectors
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.rules import read_items
from lightning_ccn.data.schema import Schema
from lightning_ccn.data.vocabulary import Vocabulary
from lightning_ccn.export.rebuild import Rebuilt
from lightning_ccn.export.table_files import load_table, mean_of_columns
from lightning_ccn.serving.id_lookup import hash_integers, hash_texts, index_of
from lightning_ccn.serving.manifest import FeatureEntry, FileEntry, Manifest, NumberEntry, TableEntry
from lightning_ccn.serving.package import sha256_of
from lightning_ccn.serving.request_times import LAST_SECOND

AT_ONCE = 1 << 20  # texts that are hashed at a time
JSON_TYPES = {"integer": ["integer"], "row": ["integer"], "text": ["string"], "any": ["integer", "string"]}


def write_tables(rebuilt: Rebuilt, checkpoint: Path, folder: Path) -> None:
    """Writes every embedding table of the system as float32, and the weights of crossed ids."""
    (folder / "tables").mkdir()
    names = {*rebuilt.embedding.users.tables.values(), *rebuilt.embedding.items.tables.values()}
    for name in sorted(names):
        load_table(checkpoint, name, folder / "tables" / f"{name}.values.npy")
    if rebuilt.crosses is not None:
        path = folder / "tables" / "crosses.values.npy"
        load_table(checkpoint, "crosses", path)
        mean_of_columns(path)


def write_items(dataset: Dataset, folder: Path) -> None:
    """Writes the attributes of the items, one array each."""
    (folder / "items").mkdir()
    for name, values in read_items(dataset).items():
        if name == page_row.ITEM:
            continue
        if isinstance(values, Ragged):
            np.save(folder / "items" / f"{name}.npy", values.values)
            np.save(folder / "items" / f"{name}.offsets.npy", values.offsets)
        else:
            np.save(folder / "items" / f"{name}.npy", values)


def write_vectors(dataset: Dataset, folder: Path) -> None:
    """Writes the frozen vectors of the items, as they are in the data."""
    (folder / "vectors").mkdir()
    for name, vectors in open_vectors(dataset.folder, dataset.schema).items():
        np.save(folder / "vectors" / f"{name}.npy", vectors)


def write_ids(dataset: Dataset, folder: Path) -> dict[str, TableEntry]:
    """Writes where the log's ids are in each table, and copies the vocabularies.

    Returns:
        What the manifest says of each table.
    """
    (folder / "ids").mkdir()
    entries = {}
    for name, table in dataset.schema.tables.items():
        path = dataset.folder / "vocabulary" / f"{name}.parquet"
        if name not in dataset.digests:
            entries[name] = TableEntry(table.rows, "any" if table.mapping == "hash" else "row")
            continue
        ids = Vocabulary.load(path).ids
        text = not pa.types.is_integer(ids.type)
        for part, values in _index(ids, text).items():
            np.save(folder / "ids" / f"{name}.{part}.npy", values)
        (folder / "vocabulary").mkdir(exist_ok=True)
        with path.open("rb") as source, (folder / "vocabulary" / path.name).open("wb") as copy:
            shutil.copyfileobj(source, copy)
        entries[name] = TableEntry(table.rows, "text" if text else "integer")
    return entries


def _index(ids: pa.Array, text: bool) -> dict[str, np.ndarray]:
    if not text:
        return index_of(hash_integers(ids.to_numpy(zero_copy_only=False)))
    halves = [hash_texts(ids.slice(start, AT_ONCE).to_pylist()) for start in range(0, len(ids), AT_ONCE)]
    both = np.concatenate([np.zeros((0, 2), np.uint64), *halves])
    return index_of(both[:, 0], both[:, 1])


def feature_entries(rebuilt: Rebuilt, schema: Schema) -> tuple[tuple[FeatureEntry, ...], tuple[FeatureEntry, ...]]:
    """The profile features and the item features, as the manifest has them."""
    of_users, of_items = rebuilt.embedding.users.tables, rebuilt.embedding.items.tables
    return (
        tuple(FeatureEntry(f.name, f.table, of_users[f.name], f.many) for f in schema.user),
        tuple(FeatureEntry(f.name, f.table, of_items[f.name], f.many) for f in schema.item),
    )


def number_entries(dataset: Dataset, names: tuple[str, ...]) -> tuple[NumberEntry, ...]:
    """Numbers with their moments, as the manifest has them."""
    return tuple(NumberEntry(name, *dataset.numbers[name]) for name in names)


def request_schema(manifest: Manifest, tables: dict[str, TableEntry]) -> str:
    """What a request is, as a JSON Schema; `tables` are those that the manifest will have."""

    def one(table: str) -> dict[str, Any]:
        return {"type": [*JSON_TYPES[tables[table].kind], "null"]}

    def several(entry: dict[str, Any]) -> dict[str, Any]:
        return {"type": "array", "items": entry}

    def fixed(properties: dict[str, Any]) -> dict[str, Any]:
        return {"type": "object", "properties": properties, "additionalProperties": False}

    item, number = one(page_row.ITEM), {"type": ["number", "null"]}
    second = {"type": "integer", "minimum": 0, "maximum": LAST_SECOND}
    times = {
        "time": {
            **second,
            "type": ["integer", "null"],
            "description": "of the request, in seconds since 1970; null: no behaviours",
        },
        "short_times": {**several(second), "description": "of each of short, in seconds since 1970"},
        "long_times": {**several(second), "description": "of each of long, in seconds since 1970"},
    }
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A page to be scored, in the log's own ids",
        **fixed(
            {
                "items": {**several(item), "description": "the candidates"},
                "user": fixed({f.name: several(one(f.table)) if f.many else one(f.table) for f in manifest.user}),
                "trigger": {**item, "description": "the item that the user tapped to enter; null: none"},
                "short": {**several(item), "description": "recent behaviours, oldest first"},
                "long": {**several(item), "description": "the whole history, oldest first"},
                **(times if manifest.reads_gaps else {}),
                "numbers": fixed({entry.name: several(number) for entry in manifest.numbers}),
                "page_numbers": fixed({entry.name: number for entry in manifest.page_numbers}),
            }
        ),
        "required": ["items"],
    }
    return json.dumps(document, indent=2) + "\n"


def file_entries(folder: Path, beside: tuple[str, ...]) -> dict[str, FileEntry]:
    """Size and digest of each file of a package.

    Args:
        folder: The package.
        beside: Names of files that are not listed.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in beside)
    return {path.relative_to(folder).as_posix(): FileEntry(path.stat().st_size, sha256_of(path)) for path in paths}
