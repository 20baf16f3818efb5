"""A package says what `ccn predict` says, by ONNX Runtime and compiled, for every system of conf/model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from lightning_ccn.data.collate import Collator
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.item_vectors import open_vectors
from lightning_ccn.data.parquet import PageRows
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.rules import read_items
from lightning_ccn.export.export import looking_up
from lightning_ccn.export.measure import page_requests
from lightning_ccn.export.rebuild import rebuild
from lightning_ccn.serving import Scorer
from lightning_ccn.serving.package import Package
from lightning_ccn.training.given_checkpoint import find_checkpoint
from tests.export.checkpoints import GAPS, GIVEN, predicted, served
from tests.processes import clean_environment

CLOSE = 1e-6
OTHER_LOSSES = ("ccn_without_attraction", "ccn_without_repulsion")  # whose graph is CCN's
SYSTEMS = {path.stem for path in (Path(__file__).parents[2] / "conf" / "model").glob("*.yaml")} - {*OTHER_LOSSES}
OF_OPTIONS = {
    "din_with_dice": ("din", ["--model.system.init_args.activation", "dice"]),
    "dei2n_without_time": ("dei2n", ["--model.system.init_args.time", "false"]),
}
ALL = {**{name: (name, []) for name in sorted(SYSTEMS)}, **OF_OPTIONS}
NOW, DAY = 1_800_000_000, 24 * 3600
HISTORIES = ((0, 0), (1, 0), (0, 3), (50, 1000))  # short and long: empty, and longer than is read


def test_a_package_of_ccn_scores_as_predict_does(
    package: Path, package_run: Path, package_data: Path, tmp_path: Path
) -> None:
    of_model = predicted(package_run, package_data, tmp_path / "scores")
    np.testing.assert_allclose(served(package, package_data), of_model, atol=CLOSE)


@pytest.mark.parametrize("candidates", [1, 2, 37, 500])
def test_requests_of_any_size_are_scored_as_pages_are(
    candidates: int, package: Path, package_run: Path, package_data: Path
) -> None:
    check_requests(candidates, package_run, package_data, package, [Scorer(package)])


@pytest.fixture(scope="module")
def folder_of_all(package_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of all systems, and their packages with compiled graphs."""
    folder = tmp_path_factory.mktemp("all")
    systems = json.dumps([(name, *about) for name, about in ALL.items()])
    command = [sys.executable, "-W", "ignore", "-m", "tests.export.packages_of_all", package_data, folder, systems]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, env=clean_environment())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_a_package_of_every_system_scores_as_predict_does_in_both_engines(
    name: str, folder_of_all: Path, package_data: Path, tmp_path: Path
) -> None:
    why = folder_of_all / "failed" / name
    assert not why.exists(), why.read_text()
    run, package = folder_of_all / "runs" / "default" / name, folder_of_all / "packages" / name
    read = {entry.name for entry in onnx.load(package / "model.onnx").graph.input}
    assert read <= GIVEN | GAPS
    assert read & GAPS == (GAPS if name == "dei2n" else set())
    of_model = predicted(run, package_data, tmp_path / "scores")
    assert np.ptp(of_model) > 0.02, "scores that are all alike would show nothing"
    np.testing.assert_allclose(served(package, package_data), of_model, atol=CLOSE)
    np.testing.assert_allclose(served(package, package_data, "compiled"), of_model, atol=CLOSE)
    scorers = [Scorer(package), Scorer(package, engine="compiled")]
    for candidates in (1, 2, 500):
        check_requests(candidates, run, package_data, package, scorers)
    by_onnx, by_compiled = [scorer.score(items=[]) for scorer in scorers]
    assert (by_onnx.degree is None) == (by_compiled.degree is None)
    assert by_onnx.intent == pytest.approx(by_compiled.intent, abs=CLOSE)


def check_requests(candidates: int, run: Path, folder: Path, package: Path, scorers: list[Scorer]) -> None:
    """Compares scorers of a package with its model: unknown ids, candidates that are alike, and all `HISTORIES`."""
    dataset = Dataset.open(folder)
    system = looking_up(rebuild(find_checkpoint(run), dataset), Package(package))
    vectors = open_vectors(dataset.folder, dataset.schema)
    collator = Collator(dataset.schema, read_items(dataset), dataset.numbers, 20, 20, vectors)
    rng = np.random.default_rng(candidates)
    for short, long in HISTORIES:
        rows: PageRows = {
            "page_id": np.array([7]),
            "trigger": rng.integers(0, 61, 1),
            "user": rng.integers(0, 41, 1),
            "city": rng.integers(0, 4, 1),
            "interests": one_list(rng.integers(0, 6, short)),
            "items": one_list(rng.integers(0, 61, candidates)),
            "price": one_list(rng.normal(3, 2, candidates)),
            "age": rng.normal(100, 5, 1),
            "short_items": one_list(rng.integers(0, 61, short)),
            "long_items": one_list(rng.integers(0, 61, long)),
            "time": np.array([NOW]),
            "short_times": one_list(NOW - np.sort(rng.integers(0, DAY, short))[::-1]),
            "long_times": one_list(NOW - np.sort(rng.integers(0, 100 * DAY, long))[::-1]),
        }
        with torch.no_grad():
            expected = system(collator(rows)).logit.sigmoid().numpy()
        for scorer in scorers:
            (page,) = page_requests(rows, np.array([0]), scorer.manifest)
            np.testing.assert_allclose(scorer.score_rows(page).probability, expected, atol=CLOSE)


def one_list(values: np.ndarray) -> Ragged:
    return Ragged(values, np.array([0, len(values)]))
