"""Shared fixtures: small valid dataset folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.data import store_errors
from lightning_ccn.data.ragged import Ragged, joined_rows
from lightning_ccn.data.schema import Feature, Schema, Table
from lightning_ccn.data.store_path import StorePath
from lightning_ccn.data.vocabulary import Vocabulary
from lightning_ccn.data.writer import DatasetWriter
from lightning_ccn.export.package_files import request_schema
from lightning_ccn.serving.package import Package
from tests.data.stats import accept_changes
from tests.export.checkpoints import export_run, train
from tests.garbage import collect_if_grown
from tests.studies.html_report.browser import BROWSERS
from tests.trap import Trap

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.s3_server import S3Server

os.environ["WANDB_MODE"] = "disabled"  # starting the client takes seconds; tests of W&B pass `--wandb offline`

DAY = 86_400
START = {"train": 1_700_000_000, "validation": 1_700_000_000 + 10 * DAY, "test": 1_700_000_000 + 12 * DAY}


def ragged(rng: np.random.Generator, rows: int, low: int, high: int, below: int) -> Ragged:
    """`rows` lists with `low` to `high` random table rows in [1, below) each."""
    lengths = rng.integers(low, high + 1, rows)
    return Ragged.from_lengths(rng.integers(1, below, lengths.sum()), lengths)


def behaviour_times(rng: np.random.Generator, page_time: np.ndarray, items: Ragged) -> Ragged:
    """Times of behaviours: before the page's time, in order within each page."""
    page = np.repeat(np.arange(len(page_time)), items.lengths)
    ago = rng.integers(1, 5 * DAY, len(page))
    return Ragged(page_time[page] - ago[np.lexsort((-ago, page))], items.offsets)


def write_dataset(
    folder: Path,
    *,
    seed: int = 0,
    pages: dict[str, int] | None = None,
    users: int = 40,
    items: int = 60,
    categories: int = 5,
    tags: int = 11,
    image: int = 3,
    numbers: tuple[str, ...] = (),
    page_numbers: tuple[str, ...] = (),
    same_as_trigger: tuple[str, ...] = (),
    ratio_to_trigger: tuple[str, ...] = (),
    weight: str | None = None,
    position_bias: int | None = None,
    orders: bool = False,
    mapping: str = "dense",
    first_page_id: int = 0,
) -> Path:
    """Writes a small valid dataset; equal arguments write equal bytes.

    Items of the trigger's category are clicked with probability 0.6, others with 0.1, which a model can learn.
    With `orders`, whoever clicks an item of the first four of eight sellers buys it.
    `users`, `items`, `categories` and `tags` are numbers of ids; the tables have one row more. `image` is the width of
    the items' vectors. Without tags (0) or vectors, the schema has none.
    """
    rng = np.random.default_rng(seed)
    schema = Schema(
        tables={
            "user": Table(users + 1, mapping),
            "item": Table(items + 1),
            "category": Table(categories + 1),
            "seller": Table(9),
            "city": Table(4),
            **({"tag": Table(tags + 1)} if tags else {}),
        },
        # `interests` is a list feature, may be empty, and shares the table of the items' categories
        user=(Feature("user", "user"), Feature("city", "city"), Feature("interests", "category", many=True)),
        # `tags` is a list too, of another order than in a batch, which has those with one value first
        attributes=(
            Feature("category", "category"),
            *([Feature("tags", "tag", many=True)] if tags else []),
            Feature("seller", "seller"),
        ),
        numbers=numbers,
        page_numbers=page_numbers,
        same_as_trigger=same_as_trigger,
        ratio_to_trigger=ratio_to_trigger,
        weight=weight,
        position_bias=position_bias,
        vectors={"image": image} if image else {},
        category="category",
    )
    single = [feature for feature in schema.attributes if not feature.many]
    attributes = {f.name: rng.integers(1, schema.tables[f.table].rows, items + 1) for f in single}
    for column in attributes.values():
        column[0] = 0
    none, own = Ragged(np.zeros(0, np.int64), np.zeros(2, np.int64)), np.random.default_rng([seed, 1])
    lists = {"tags": joined_rows([none, ragged(own, items, 0, 3, tags + 1)])} if tags else {}
    vectors = {name: own.normal(size=(items + 1, width)) for name, width in schema.vectors.items()}
    for vector in vectors.values():
        vector[0] = 0
    vocabularies = {name: Vocabulary() for name, table in schema.tables.items() if table.mapping == "dense"}
    for name, vocabulary in vocabularies.items():
        vocabulary.extend(1_000 + np.arange(schema.tables[name].rows - 1))
    if pages is None:
        pages = {"train": 96, "validation": 24, "test": 24}
    with DatasetWriter(folder, schema) as writer:
        for split, count in pages.items():
            time = START[split] + np.sort(rng.integers(0, DAY, count))
            exposed = ragged(rng, count, 1, 6, items + 1)
            trigger = rng.integers(0, items + 1, count)
            category = attributes["category"]
            alike = category[exposed.values] == np.repeat(category[trigger], exposed.lengths)
            probability = np.where(alike, 0.6, 0.1)
            clicks = (rng.random(len(probability)) < probability).astype(np.int8)
            short, long = ragged(rng, count, 0, 5, items + 1), ragged(rng, count, 0, 12, items + 1)
            rows: dict[str, np.ndarray | Ragged] = {
                "page_id": first_page_id + np.arange(count),
                "time": time,
                "trigger": trigger,
                "user": rng.integers(1, users + 1, count),
                "city": rng.integers(0, 4, count),
                "interests": ragged(rng, count, 0, 3, categories + 1),
                "items": exposed,
                "clicks": Ragged(clicks, exposed.offsets),
                "short_items": short,
                "short_times": behaviour_times(rng, time, short),
                "long_items": long,
                "long_times": behaviour_times(rng, time, long),
            }
            for name in numbers:
                values = rng.normal(3.0, 2.0, len(probability)).astype(np.float32)
                rows[name] = Ragged(values, exposed.offsets)
            if weight is not None:
                rows[weight] = Ragged(rng.uniform(0.5, 1.5, len(probability)).astype(np.float32), exposed.offsets)
            if orders:
                rows["purchases"] = Ragged(clicks * (attributes["seller"][exposed.values] <= 4), exposed.offsets)
            if position_bias is not None:
                positions = np.arange(len(probability)) - np.repeat(exposed.offsets[:-1], exposed.lengths) + 1
                rows["positions"] = Ragged(positions, exposed.offsets)
            for name in page_numbers:
                rows[name] = rng.normal(100.0, 5.0, count).astype(np.float32)
            if split == "test":
                rows["click_probability"] = Ragged(probability.astype(np.float32), exposed.offsets)
                rows["attainable_probability"] = rows["click_probability"]
            first_page_id += count
            writer.write(split, rows)
        amounts = {name: np.append(np.nan, own.uniform(0.1, 9, items)) for name in ratio_to_trigger}
        return writer.close({**attributes, **lists, **amounts}, vocabularies, vectors=vectors)


@pytest.fixture(autouse=True)
def no_garbage() -> Iterator[None]:
    """Keeps the memory of a worker to what its tests need."""
    yield
    collect_if_grown()


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Path]:
    """`make_dataset("name", seed=1, numbers=("price",))` writes `write_dataset`'s folder under tmp_path."""

    def make(name: str = "dataset", **arguments: object) -> Path:
        return write_dataset(tmp_path / name, **arguments)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder with the default arguments for the whole session; do not write to it."""
    return write_dataset(tmp_path_factory.mktemp("session") / "dataset", numbers=("price",))


@pytest.fixture(scope="session")
def package_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of `package`, with every kind of feature; do not write to it."""
    folder = tmp_path_factory.mktemp("session") / "package_data"
    return write_dataset(
        folder, numbers=("price",), page_numbers=("age",), same_as_trigger=("category",), ratio_to_trigger=("cost",)
    )


@pytest.fixture(scope="session")
def package_run(package_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `package`; do not write to it."""
    return train(package_data, tmp_path_factory.mktemp("session") / "runs", "ccn")


@pytest.fixture(scope="session")
def package(package_data: Path, package_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported CCN; do not write to it."""
    folder = tmp_path_factory.mktemp("session") / "package"
    return export_run(package_run, folder, "--data.folder", str(package_data))


@pytest.fixture(scope="session")
def timed_package(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`package`, as if its model read how long ago behaviours were; do not write to it."""
    folder = shutil.copytree(package, tmp_path_factory.mktemp("session") / "timed_package")
    manifest = replace(Package(package).manifest, reads_gaps=True, files={})
    (folder / "package.json").write_text(manifest.to_json())
    (folder / "request.json").write_text(request_schema(manifest, manifest.tables))
    (folder / "examples.json").unlink()  # they have no times
    return folder


@pytest.fixture
def edit() -> Callable[..., Path]:
    """`edit(folder, "train", change)` rewrites a split's first file, in row groups of 10 pages.

    `change` changes the columns, {name: list of values}, in place, and may delete some. Types stay the same. stats.json
    then knows the new file, so that readers get as far as the change; its counts stay.
    """

    def edit(folder: Path, split: str, change: Callable[[dict[str, list]], object]) -> Path:
        path = folder / split / "part-00000.parquet"
        table = pq.read_table(path)
        columns = table.to_pydict()
        change(columns)
        schema = pa.schema([field for field in table.schema if field.name in columns])
        pq.write_table(pa.table(columns, schema=schema), path, row_group_size=10)
        if (folder / "stats.json").exists():
            accept_changes(folder)
        return path

    return edit


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path / "code was run")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A server for the whole session; each test has a bucket of its own, see `bucket`."""
    from tests.s3_server import S3Server  # whose libraries take half a second, for few tests

    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def bucket(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StorePath:
    """An empty bucket, whose server this process finds; what is tried again is not waited for."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(store_errors, "WAITS", (0.0, 0.0, 0.0))
    return s3_server.new_bucket(f"bucket-{uuid4()}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless browser: Playwright's own Chromium, or an installed one."""
    from playwright.sync_api import sync_playwright  # takes a while, and few tests need it

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        path = own if Path(own).exists() else next(filter(None, map(shutil.which, BROWSERS)), None)
        if path is None:
            pytest.skip(
                f"no browser: not Playwright's (`playwright install chromium`), nor any of {', '.join(BROWSERS)}"
            )
        # Chromium's sandbox does not start for root
        browser = playwright.chromium.launch(executable_path=path, chromium_sandbox=os.geteuid() != 0, timeout=0)
        yield browser
        browser.close()
