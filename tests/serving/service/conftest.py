"""Packages and services that the tests of this folder share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_ccn.export.package_files import request_schema
from lightning_ccn.serving.id_lookup import hash_texts, index_of
from lightning_ccn.serving.manifest import TableEntry
from lightning_ccn.serving.package import Package, sha256_of
from lightning_ccn.serving.request import ITEM
from lightning_ccn.serving.service.app import Service
from lightning_ccn.serving.service.limits import ServiceLimits
from tests.serving.service.asgi import Loop
from tests.serving.service.process import ServerProcess

ITEM_TABLE = "tables/item.values.npy"

EXAMPLES: list[dict[str, Any]] = [
    {
        "items": [1057, 1045, 999, None],
        "user": {"user": 1018, "city": 1002, "interests": [1002, 1003]},
        "trigger": 1029,
        "short": [1001, 1002],
        "long": [1036, 1017, 1051],
        "numbers": {"price": [3.75, None, -0.5, 2]},
        "page_numbers": {"age": 102.5},
    },
    {"items": [1007]},
]


@pytest.fixture(scope="package")
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.stop()


@pytest.fixture(scope="package")
def service(package: Path) -> Service:
    """A service with small limits."""
    return Service(package, ServiceLimits(most_bytes=20_000, most_items=50, most_requests=4, most_seconds=3600))


def changed(package: Path, folder: Path, change: Callable[[Path], object], **fields: object) -> Path:
    """A copy of a package with other files and fields of package.json, as if it had been exported so."""
    shutil.copytree(package, folder)
    change(folder)
    plain = json.loads((folder / "package.json").read_text())
    paths = {name: folder / name for name in plain["files"] if (folder / name).exists()}
    files = {name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for name, path in paths.items()}
    (folder / "package.json").write_text(json.dumps({**plain, "files": files, **fields}))
    return folder


def set_vectors(factor: float, rows: slice) -> Callable[[Path], object]:
    """Multiplies rows of the item table."""

    def change(folder: Path) -> None:
        table = np.load(folder / ITEM_TABLE)
        table[rows] *= factor
        np.save(folder / ITEM_TABLE, table)

    return change


def set_examples(text: str) -> Callable[[Path], object]:
    """Writes examples.json."""
    return lambda folder: (folder / "examples.json").write_text(text)


@pytest.fixture(scope="package")
def newer(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of a later model, with `EXAMPLES`."""

    def change(folder: Path) -> None:
        set_vectors(2.0, slice(None))(folder)
        set_examples(json.dumps(EXAMPLES))(folder)

    later = "2100-01-01T00:00:00+00:00"
    return changed(package, tmp_path_factory.mktemp("packages") / "newer", change, exported=later)


TEXTS = [f'sku «{number}», a "b"' for number in range(1, 64)]  # the ids of a log that is not ours


@pytest.fixture(scope="package")
def of_texts(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with texts as ids, which have commas, spaces and quotes; its example has several of each."""
    manifest = Package(package).manifest
    tables = dict(manifest.tables)
    for name in (ITEM, *(feature.table for feature in manifest.user)):
        tables[name] = TableEntry(tables[name].rows, "text")
    texts = TEXTS[: tables[ITEM].rows - 1]
    page = {"items": texts[3:6], "user": {"interests": texts[1:3], "city": texts[1]}, "trigger": texts[4]}

    def change(folder: Path) -> None:
        for name, entry in tables.items():
            if entry.kind == "text":
                halves = hash_texts(TEXTS[: entry.rows - 1])
                for part, values in index_of(halves[:, 0], halves[:, 1]).items():
                    np.save(folder / "ids" / f"{name}.{part}.npy", values)
        (folder / "request.json").write_text(request_schema(manifest, tables))
        set_examples(json.dumps({"requests": [page]}))(folder)

    plain = {name: asdict(entry) for name, entry in tables.items()}
    return changed(package, tmp_path_factory.mktemp("packages") / "texts", change, tables=plain)


@pytest.fixture(scope="package")
def broken(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with a table that was not copied to its end."""
    folder = tmp_path_factory.mktemp("packages") / "broken"
    shutil.copytree(package, folder)
    table = folder / ITEM_TABLE
    table.write_bytes(table.read_bytes()[:-100])
    return folder


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers, which end with the test."""
    started: list[ServerProcess] = []

    def start(package: Path, *options: str, **limits: Any) -> ServerProcess:
        started.append(ServerProcess(package, tmp_path / f"server{len(started)}.log", *options, **limits))
        return started[-1]

    yield start
    for server in started:
        server.stop()
