"""Small raw logs for tests, and dataset folders with the original ids in place of rows."""

from __future__ import annotations

import csv
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from lightning_ccn.data.build.build import build_log
from lightning_ccn.data.build.build_report import BuildReport
from lightning_ccn.data.dataset import SPLITS, Dataset

ROOT = Path(__file__).parents[3]
NOON = 1_700_000_000
Row = dict[str, Any]
EXPOSURES: Row = {
    "files": "exposures.parquet", "page": "view", "user": "user", "trigger": "entry", "item": "item", "time": "time",
    "position": "slot", "clicks": "clicked",
}  # fmt: skip
EVENTS: Row = {"files": "events.parquet", "user": "user", "item": "item", "time": "time", "type": "type"}
HALF = {"validation": 0.25, "test": 0.25}


def exposure(view: Any, user: Any, item: Any, time: Any, clicked: Any = 0, entry: Any = "t", slot: Any = 0) -> Row:
    return {"view": view, "user": user, "item": item, "time": time, "clicked": clicked, "entry": entry, "slot": slot}


def event(user: Any, item: Any, time: Any, type: Any = "click") -> Row:
    return {"user": user, "item": item, "time": time, "type": type}


def four_views() -> list[Row]:
    """Four page views of two items each, an hour apart: two in train, one in validation, one in test."""
    return [
        exposure(f"v{view}", f"u{view % 2}", f"i{item}", NOON + 3600 * view, int(item == view % 2), f"i{view}", item)
        for view in range(4)
        for item in range(2)
    ]


def write_rows(path: Path, rows: list[Row], types: dict[str, pa.DataType] | None = None) -> Path:
    """Writes rows as Parquet, or as CSV where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path
    types = types or {}
    columns = dict.fromkeys([*rows[0], *types])
    pq.write_table(
        pa.table({name: pa.array([row.get(name) for row in rows], types.get(name)) for name in columns}), path
    )
    return path


def write_spec(folder: Path, **spec: Any) -> Path:
    """Writes log.yaml of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {"exposures": EXPOSURES, "split": HALF, **spec}
    (folder / "log.yaml").write_text(yaml.safe_dump({name: value for name, value in plain.items() if value}))
    return folder / "log.yaml"


def outbrain_log(folder: Path, displays: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes up a log in Outbrain's format and prepares it, by the scripts of the example; its specification."""
    example = ROOT / "examples" / "outbrain"
    monkeypatch.chdir(folder)  # which prepare.py changes
    for script, options in (("make_log.py", [str(displays)]), ("prepare.py", ["200MB"])):
        monkeypatch.setattr(sys, "argv", [script, str(folder), *options])
        runpy.run_path(str(example / script))
    return Path(shutil.copy(example / "log.yaml", folder))


def build(spec: Path, out: str = "out", **options: Any) -> BuildReport:
    defaults: dict[str, Any] = {"threads": 1, "memory_limit": "1GB", "say": lambda line: None}
    return build_log(spec, spec.parent / out, **{**defaults, **options})


def read_pages(folder: Path) -> list[Row]:
    """Page rows in their order, with `split`, and the original ids in place of rows; None for an unknown id."""
    schema = Dataset.open(folder).schema
    of = {}
    for table in schema.tables:
        path = folder / "vocabulary" / f"{table}.parquet"
        if path.is_file():
            of[table] = [None, *pq.read_table(path)["id"].to_pylist()]
    tables = {f.name: f.table for f in schema.user}
    tables |= dict.fromkeys(("trigger", "items", "short_items", "long_items"), "item")
    pages = []
    for split in SPLITS:
        for part in Dataset.open(folder).parts(split):
            for row in pq.read_table(part).to_pylist():
                for name, table in tables.items():
                    if table in of:
                        many = isinstance(row[name], list)
                        row[name] = [of[table][at] for at in row[name]] if many else of[table][row[name]]
                pages.append({**row, "split": split})
    return pages


def pages_of(folder: Path, impressions: list[Row], **spec: Any) -> list[Row]:
    """The page rows of a log whose other tables are written already."""
    write_rows(folder / "exposures.parquet", impressions)
    build(write_spec(folder, **spec))
    return read_pages(folder / "out")


def contents(folder: Path) -> dict[str, bytes]:
    """All bytes of a dataset folder but those that say when its log was written."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "build.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
