"""Measures a request of many candidates: by ONNX Runtime, compiled, by torch, and with a copy of the user a candidate.

python -m benchmarks.serving
python -m benchmarks.serving --rows true

Prints JSON. All ways take turns, request by request, on one thread: what else the machine does falls on all alike. With
`--rows`, a package gets tables of the paper's 80.6 million rows (in fp16, 6 GB of files), and is opened by one process
and by four.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import auto_cli

from benchmarks.about import cpu_name, versions
from lightning_ccn.data.collate import Collator
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.item_vectors import open_vectors
from lightning_ccn.data.parquet import PageRows
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.rules import read_items
from lightning_ccn.export.export import looking_up
from lightning_ccn.export.rebuild import rebuild
from lightning_ccn.provenance import git_state
from lightning_ccn.serving import Scorer
from lightning_ccn.serving.id_lookup import hash_integers, index_of
from lightning_ccn.serving.manifest import TableEntry
from lightning_ccn.serving.package import Package
from lightning_ccn.serving.request import Rows
from lightning_ccn.training.given_checkpoint import find_checkpoint

CANDIDATES, SHORT, LONG, KEPT = 500, 50, 1000, 50  # of a request; KEPT of each category are read
USERS, ITEMS = 61_585_143, 19_061_870  # the paper's
WAYS = ("onnx", "compiled", "torch", "torch, a copy of the user a candidate")


def main(requests: int = 200, rows: bool = False, processes: int = 4) -> None:
    """Measure requests.

    Args:
        requests: Number of requests of each way.
        rows: Measure memory with the paper's numbers of rows too.
        processes: How many processes open that package at a time.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        package, dataset, run = make_package(place)
        found: dict[str, Any] = {"request": {"candidates": CANDIDATES, "short": SHORT, "long": LONG, "kept": KEPT}}
        found["ms"] = contest(package, dataset, run, requests)
        if rows:
            found["rows"] = memory_of(grown(package, place / "large"), processes)
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "git": git_state(),
        "cpu": cpu_name(),
        "versions": versions(),
    }
    print(json.dumps({"benchmark": "serving", "threads": 1, **about, **found}, indent=2))


def make_package(place: Path) -> tuple[Path, Dataset, Path]:
    """A package of a CCN after an epoch of a small world."""
    data, run = place / "world", place / "runs" / "default" / "r"
    run_quietly("data", "world", str(data), "--train_pages", "2000", "--validation_pages", "200", "--test_pages", "500")
    options = ["--config", "conf/experiment/default.yaml", "--data.folder", str(data), "--runs", str(place / "runs")]
    lengths = ["--data.short_length", str(SHORT), "--data.long_length", str(KEPT)]
    run_quietly("fit", *options, *lengths, "--run_id", "r", "--trainer.max_epochs", "1", "--wandb", "off")
    run_quietly("export", "--ckpt_path", str(run), "--data.folder", str(data), "--output", str(place / "package"))
    return place / "package", Dataset.open(data), run


def run_quietly(*words: str) -> None:
    """Runs a command of `ccn` without its output."""
    subprocess.run([sys.executable, "-m", "lightning_ccn.cli", *words], check=True, stdout=subprocess.DEVNULL)


def contest(package: Path, dataset: Dataset, run: Path, requests: int) -> dict[str, dict[str, float]]:
    """p50 and p99 of each way, in milliseconds."""
    scorers = {"onnx": Scorer(package), "compiled": Scorer(package, engine="compiled")}
    system = looking_up(rebuild(find_checkpoint(run), dataset), Package(package))
    collator = Collator(
        dataset.schema, read_items(dataset), dataset.numbers, SHORT, KEPT, open_vectors(dataset.folder, dataset.schema)
    )
    rng = np.random.default_rng(0)

    @torch.no_grad()
    def by_torch(rows: Rows, copies: bool) -> np.ndarray:
        batch = collator(page_rows(dataset, rows, copies))
        probability: np.ndarray = system(batch).logit.sigmoid().numpy()
        return probability

    ways: dict[str, Callable[[Rows], np.ndarray]] = {
        "onnx": lambda rows: scorers["onnx"].score_rows(rows).probability,
        "compiled": lambda rows: scorers["compiled"].score_rows(rows).probability,
        "torch": lambda rows: by_torch(rows, copies=False),
        "torch, a copy of the user a candidate": lambda rows: by_torch(rows, copies=True),
    }
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(requests + 3):
        rows = random_rows(rng, dataset)
        answers = []
        for way in WAYS:
            start = time.perf_counter()
            answers.append(ways[way](rows))
            if number >= 3:  # the first ones warm up
                times[way].append(1e3 * (time.perf_counter() - start))
        for answer in answers:
            np.testing.assert_allclose(answer, answers[0], atol=1e-6)
    return {
        way: {"p50": round(float(np.percentile(of, 50)), 2), "p99": round(float(np.percentile(of, 99)), 2)}
        for way, of in times.items()
    }


def random_rows(rng: np.random.Generator, dataset: Dataset) -> Rows:
    """A request of random users and items."""
    items, schema = dataset.schema.tables["item"].rows, dataset.schema
    user = [rng.integers(1, schema.tables[feature.table].rows, 1) for feature in schema.user]
    return Rows(
        user=user,
        items=rng.integers(1, items, CANDIDATES),
        short=rng.integers(1, items, SHORT),
        long=rng.integers(1, items, LONG),
        trigger=int(rng.integers(1, items)),
        numbers=np.zeros((CANDIDATES, len(schema.numbers)), np.float32),
        page_numbers=np.zeros(len(schema.page_numbers), np.float32),
    )


def page_rows(dataset: Dataset, rows: Rows, copies: bool) -> PageRows:
    """A request as one page, or as a page of its own for each candidate."""
    pages = CANDIDATES if copies else 1

    def lists(values: np.ndarray) -> Ragged:
        return Ragged.from_lengths(np.tile(values, pages), np.full(pages, len(values)))

    found: dict[str, np.ndarray | Ragged] = {
        "page_id": np.arange(pages),
        "trigger": np.full(pages, rows.trigger),
        "items": Ragged.from_lengths(rows.items, np.full(pages, CANDIDATES // pages)),
        "short_items": lists(rows.short),
        "long_items": lists(rows.long),
    }
    for feature, values in zip(dataset.schema.user, rows.user, strict=True):
        found[feature.name] = lists(values) if feature.many else np.repeat(values, pages)
    return found


def grown(package: Path, large: Path) -> Path:
    """A copy of a package with as many users and items as the paper has, in fp16."""
    shutil.copytree(package, large)
    manifest, rng = Package(package).manifest, np.random.default_rng(0)
    tables = dict(manifest.tables)
    for name, rows in (("user", USERS + 1), ("item", ITEMS + 1)):
        tables[name] = TableEntry(rows, "integer")
        for part, values in index_of(hash_integers(np.arange(1, rows))).items():
            np.save(large / "ids" / f"{name}.{part}.npy", values)
    for feature in (*manifest.user, *manifest.item):
        path = large / "tables" / f"{feature.stored}.values.npy"
        values = np.load(path)
        rows = tables[feature.table].rows
        table = np.lib.format.open_memmap(path, "w+", np.float16, (rows, values.shape[1]))
        for start in range(0, rows, 1 << 20):
            end = min(start + (1 << 20), rows)
            table[start:end] = rng.uniform(-0.05, 0.05, (end - start, values.shape[1]))
        table.flush()
    for path in (large / "items").glob("*.npy"):
        values = np.load(path)
        np.save(path, values[rng.integers(0, len(values), ITEMS + 1)])
    smaller = replace(manifest, table_dtype="fp16", tables=tables, files={})
    (large / "package.json").write_text(smaller.to_json())
    return large


CHILD = """
import sys, time, numpy as np
from lightning_ccn.serving import Scorer
start = time.perf_counter()
scorer = Scorer(sys.argv[1])
scorer.score(items=[1])
print(time.perf_counter() - start, flush=True)
rng = np.random.default_rng(int(sys.argv[2]))
for _ in range(300):
    items, users = rng.integers(1, {items}, 1551).tolist(), int(rng.integers(1, {users}))
    scorer.score(items[:500], {{"user": users}}, items[500], items[501:551], items[551:])
print("done", flush=True)
sys.stdin.read()
"""


def memory_of(package: Path, processes: int) -> dict[str, Any]:
    """Seconds to open and MiB of memory, for one process and for several: shared pages count once."""
    size = sum(path.stat().st_size for path in package.rglob("*") if path.is_file())
    found: dict[str, Any] = {"rows": USERS + ITEMS, "files_gib": round(size / 2**30, 2)}
    for count in (1, processes):
        code = CHILD.format(items=ITEMS, users=USERS)
        children = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(package), str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(Path.cwd())},
            )
            for number in range(count)
        ]
        seconds = []
        for child in children:
            assert child.stdout is not None
            seconds.append(float(child.stdout.readline()))
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "done\n"
        sizes = [memory_parts(child.pid) for child in children]
        found[f"{count} processes"] = {
            "seconds_to_open": round(max(seconds), 2),
            "pss_mib": round(sum(pss for pss, _ in sizes)),
            "of_which_private_mib": round(sum(private for _, private in sizes)),
        }
        for child in children:
            child.communicate("")
    return found


def memory_parts(process: int) -> tuple[float, float]:
    """A process's share of its pages (shared ones count in proportion), and its anonymous pages alone; MiB."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    kib = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    return kib["Pss"] / 2**10, kib["Pss_Anon"] / 2**10


if __name__ == "__main__":
    auto_cli(main)
