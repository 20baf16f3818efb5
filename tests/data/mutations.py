"""Random damage to a dataset folder: values, lengths, nulls, order, types, columns, files, YAML, JSON."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from lightning_ccn.data.item_vectors import UNREADABLE

Rng = np.random.Generator
INTEGERS = (-1, 0, 1, 5, 61, 2**31, 2**32, 2**53 + 1, 2**63 - 1, -(2**63), 1_700_000_000, 1_700_000_000_000)
NUMBERS = (0.0, -1.0, 1e-320, 1e30, -1e31, 3.4e38, sys.float_info.max, float("inf"), float("nan"))
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 10**30, 0.5, float("nan"), float("inf"), "", "a.b", "type", "keys", "user_category"),
    *("item", "x" * 300, "Ärger", "a b", "../a", [], [[]], [1], {}, {"a": 1}, {1: 2}, date(2024, 1, 1), "1e400"),
)
TYPES: tuple[pa.DataType, ...] = (
    *(pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.bool_()),
    *(pa.string(), pa.binary(), pa.timestamp("us"), pa.date32(), pa.decimal128(30, 2), pa.null()),
)


def mutate(rng: Rng, folder: Path) -> str:
    """Damages a folder in one or two places; returns what was done."""
    return " + ".join(choose(rng, MUTATIONS)(rng, folder) for _ in range(rng.integers(1, 3)))


def choose(rng: Rng, among: Any) -> Any:
    return among[int(rng.integers(len(among)))]


def a_part(rng: Rng, folder: Path) -> Path:
    """A Parquet file, most often of pages."""
    parts = sorted(path for path in folder.rglob("*.parquet") if path.is_file())
    parts = parts or [folder / "train" / "part-00000.parquet"]  # all are gone
    parts[0].parent.mkdir(exist_ok=True)
    return choose(rng, [path for path in parts if rng.random() < 0.5 or path.parent.name in ("train", "test")] or parts)


def rewrite(path: Path, table: pa.Table, **options: Any) -> None:
    pq.write_table(table, path, **{"row_group_size": 10} | options)


def read(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path).read()
    except (OSError, pa.ArrowException):  # damaged before
        return pa.table({"page_id": [1]})


def values(rng: Rng, folder: Path) -> str:
    """One value, list or length."""
    path = a_part(rng, folder)
    table = read(path)
    name = choose(rng, table.column_names)
    if table.column_names.count(name) > 1:
        return "nothing"
    field, column = table.schema.field(name), table.column(name).to_pylist()
    if not column:
        return "nothing"
    row = int(rng.integers(len(column)))
    of_list = isinstance(column[row], list)
    odd = choose(rng, (*(NUMBERS if "double" in str(field.type) or "float" in str(field.type) else INTEGERS), None))
    kind = choose(rng, ("value", "pop", "append", "empty", "null", "reverse", "all"))
    match kind:
        case "null":
            column[row] = None
        case "all":
            column = [[odd] * len(c) if isinstance(c, list) else odd for c in column]
        case "value" if not of_list:
            column[row] = odd
        case _ if not of_list:
            column = column[::-1]
        case "value" if column[row]:
            column[row][int(rng.integers(len(column[row])))] = odd
        case "pop":
            column[row] = column[row][:-1]
        case "append" | "value":
            column[row] = [*column[row], odd]
        case "empty":
            column[row] = []
        case "reverse":
            column[row] = column[row][::-1]
    try:
        array = pa.array(column, field.type)
    except (pa.ArrowException, OverflowError, ValueError):
        array = pa.array(column)  # a wider type
    at = table.schema.get_field_index(name)
    rewrite(path, table.set_column(at, pa.field(name, array.type), array))
    return f"{path.relative_to(folder)}: {kind} of {name}, row {row}, {odd}"


def types(rng: Rng, folder: Path) -> str:
    """Another type of a column."""
    path = a_part(rng, folder)
    table = read(path)
    name = choose(rng, table.column_names)
    if table.column_names.count(name) > 1:
        return "nothing"
    column = table.column(name).combine_chunks()
    kind = choose(rng, TYPES)
    wrap: Callable[[pa.DataType], pa.DataType] = choose(
        rng, (pa.list_, pa.large_list, lambda t: t, lambda t: pa.list_(t, 2), lambda t: pa.list_(pa.list_(t)))
    )
    array = pa.nulls(table.num_rows, wrap(kind))
    for target in (wrap(kind), kind, pa.large_list(kind)):
        try:
            array = column.cast(target, safe=False)
            break
        except (pa.ArrowException, ValueError):
            continue
    if rng.random() < 0.2:
        array = pa.array([{"a": 1}] * table.num_rows)
    try:
        rewrite(path, table.set_column(table.schema.get_field_index(name), pa.field(name, array.type), array))
    except pa.ArrowException:
        return "nothing: Parquet has no such type"
    return f"{path.relative_to(folder)}: {name} as {array.type}"


def columns(rng: Rng, folder: Path) -> str:
    """A column dropped, renamed, added, repeated; rows shuffled, dropped, repeated; another layout."""
    path = a_part(rng, folder)
    table = read(path)
    if not table.num_columns:
        return "nothing"
    at = int(rng.integers(table.num_columns))
    name, options = table.column_names[at], {}
    kind = choose(rng, ("drop", "rename", "repeat", "add", "shuffle", "none", "some", "twice", "layout", "order"))
    match kind:
        case "drop":
            table = table.remove_column(at)
        case "rename":
            new = choose(rng, (name.upper(), f"{name}.x", "", "page_id", "ü"))
            table = table.rename_columns([new if n == name else n for n in table.column_names])
        case "repeat":
            table = table.append_column(name, table.column(at))
        case "add":
            table = table.append_column(f"{name}.list.element", table.column(at))
        case "shuffle":
            table = table.take(rng.permutation(table.num_rows))
        case "none":
            table = table.slice(0, 0)
        case "some":
            table = table.slice(0, int(rng.integers(table.num_rows + 1)))
        case "twice":
            table = pa.concat_tables([table, table])
        case "layout":
            options = {"row_group_size": int(rng.integers(1, 5)), "compression": choose(rng, ("none", "gzip", "lz4"))}
        case "order":
            table = (
                table.select(table.column_names[::-1]) if len(set(table.column_names)) == table.num_columns else table
            )
    rewrite(path, table, **options)
    return f"{path.relative_to(folder)}: {kind} {name}"


def files(rng: Rng, folder: Path) -> str:
    """Bytes, names and places of files."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    path = choose(rng, paths)
    whole = path.read_bytes()
    kind = choose(
        rng, ("cut", "more", "flip", "text", "empty", "gone", "rename", "subfolder", "folder", "copy", "loop", "hidden")
    )
    match kind:
        case "cut":
            path.write_bytes(whole[: int(rng.integers(len(whole) + 1))])
        case "more":
            path.write_bytes(whole + rng.bytes(9))
        case "flip":
            changed = bytearray(whole)
            for at in rng.integers(0, max(len(changed), 1), 5) if changed else ():
                changed[at] = int(rng.integers(256))
            path.write_bytes(changed)
        case "text":
            path.write_text("id,time\n1,2\n")
        case "empty":
            path.write_bytes(b"")
        case "gone":
            path.unlink()
        case "rename":
            path.rename(path.with_name(choose(rng, ("part-0.pq", "data.csv", "x.PARQUET", "y.parquet", "part"))))
        case "subfolder":
            (path.parent / "day=1").mkdir(exist_ok=True)
            path.rename(path.parent / "day=1" / path.name)
        case "folder":
            path.unlink()
            path.mkdir()
        case "copy":
            shutil.copy(path, path.with_name(f"a{path.name}"))
        case "loop":
            link = path.parent / "loop"
            if not link.exists():
                link.symlink_to(path.parent)
        case "hidden":
            path.rename(path.with_name(f"_{path.name}"))
    return f"{path.relative_to(folder)}: {kind}"


def plain(rng: Rng, folder: Path) -> str:
    """A value of schema.yaml or stats.json."""
    path = folder / choose(rng, ("schema.yaml", "schema.yaml", "stats.json"))
    if not path.is_file():
        return "nothing"
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, ValueError):
        return "nothing"
    place: Any = content
    trail: list[Any] = []
    while isinstance(place, dict | list) and place:
        key = choose(rng, list(place) if isinstance(place, dict) else range(len(place)))
        trail.append(key)
        if rng.random() < 0.3 or not isinstance(place[key], dict | list):
            break
        place = place[key]
    if not isinstance(place, dict | list) or not trail or not place:
        return "nothing"
    odd = choose(rng, ODD)
    match choose(rng, ("value", "value", "drop", "add", "key")):
        case "value":
            place[trail[-1]] = odd
        case "drop":
            del place[trail[-1]]
        case "add" if isinstance(place, list):
            place.append(odd)
        case _ if isinstance(place, dict) and isinstance(odd, str | int | float | None):
            place[odd] = place.pop(trail[-1])
    text = json.dumps(content, default=str) if path.suffix == ".json" else yaml.safe_dump(content, sort_keys=False)
    path.write_text(text)
    return f"{path.name}: {'.'.join(map(str, trail))} {odd!r}"


def vectors(rng: Rng, folder: Path) -> str:
    """The items' vectors: a value, the shape, the type, or the file."""
    path = folder / "vectors" / "image.npy"
    if not path.is_file():
        return "nothing"
    kind = choose(rng, ("value", "value", "rows", "columns", "type", "bytes", "cut", "gone"))
    stored = path.read_bytes()
    if kind == "gone":
        path.unlink()
    elif kind == "cut":
        path.write_bytes(stored[: int(rng.integers(len(stored)))])
    elif kind == "bytes":
        at = int(rng.integers(len(stored)))
        path.write_bytes(stored[:at] + rng.bytes(4) + stored[at + 4 :])
    else:
        try:
            array = np.load(path)
        except UNREADABLE:
            return "nothing"
        if kind == "value" and np.issubdtype(array.dtype, np.floating):
            flat = array.reshape(-1)
            with np.errstate(over="ignore"):  # of half precision
                flat[int(rng.integers(flat.size))] = choose(rng, NUMBERS)
        elif kind == "type":
            array = array.astype(choose(rng, (np.float16, np.float64, np.int32, np.complex64, object)))
        elif kind in ("rows", "columns"):
            array = array[:-1] if kind == "rows" else array[:, :-1]
        np.save(path, array, allow_pickle=True)
    return f"vectors/image.npy: {kind}"


MUTATIONS: tuple[Callable[[Rng, Path], str], ...] = (
    values,
    values,
    values,
    types,
    columns,
    columns,
    files,
    plain,
    plain,
    vectors,
)
