"""A package of a model with an order head answers with orders too, as `ccn predict` does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from lightning_ccn.cli import main
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.errors import DataError, OptionError
from lightning_ccn.export import export
from lightning_ccn.export.compare_packages import compare_packages
from lightning_ccn.export.rebuild import Model
from lightning_ccn.models.system import Prediction
from lightning_ccn.serving import Request, Scorer
from lightning_ccn.serving.package import Package
from lightning_ccn.serving.score_files import score_files
from lightning_ccn.serving.scorer import Engine
from lightning_ccn.serving.service.app import Service
from lightning_ccn.serving.service.limits import ServiceLimits
from tests.conftest import write_dataset
from tests.export.checkpoints import GIVEN, export_run, train
from tests.serving.service.asgi import Loop, post

CLOSE = 1e-6
pytestmark = pytest.mark.slow
ORDERS = ("order_auc", "order_logloss", "order_calibration")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "log", numbers=("price",), orders=True)


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a TAN with an order head."""
    return train(folder, tmp_path_factory.mktemp("runs"), "tan", "--model.order_weight", "1")


@pytest.fixture(scope="module")
def selling(run: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of `run`, with int8 tables."""
    options = ["--data.folder", str(folder), "--table_dtype", "int8"]
    return export_run(run, tmp_path_factory.mktemp("packages") / "package", *options)


@pytest.fixture(scope="module")
def scores(run: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """What `ccn predict` writes of the test split, in the order of the files."""
    out = tmp_path_factory.mktemp("predicted") / "scores"
    words = ["predict", "--ckpt_path", str(run), "--data.folder", str(folder), "--output", str(out)]
    assert main([*words, "--trainer.enable_progress_bar", "false", "--data.lanes", "1"]) == 0
    return pq.read_table(out)


def check_served(package: Path, folder: Path, scores: pa.Table, off: float, engine: Engine = "onnx") -> None:
    """Compares the answers to the examples, which are the first pages, with what predict wrote."""
    scorer = Scorer(package, engine=engine)
    examples = json.loads((package / "examples.json").read_text())["requests"]
    answers = [scorer.answer(Request.from_plain(plain)) for plain in examples]
    for name in ("probability", "order_probability"):
        found = np.concatenate([getattr(answer, name) for answer in answers])
        np.testing.assert_allclose(found, scores.column(name).to_numpy()[: len(found)], atol=off)
    empty = scorer.score(items=[]).order_probability
    assert empty is not None and empty.shape == (0,)


def test_both_probabilities_are_those_of_predict(
    run: Path, selling: Path, folder: Path, scores: pa.Table, tmp_path: Path
) -> None:
    graph = onnx.load(selling / "model.onnx").graph
    assert {entry.name for entry in graph.input} <= GIVEN
    assert [entry.name for entry in graph.output] == ["probability", "degree", "order_probability"]
    assert '"order_probability"' in (selling / "triton" / "ccn" / "config.pbtxt").read_text()
    check_served(selling, folder, scores, 2e-2)
    exact = export_run(run, tmp_path / "exact", "--data.folder", str(folder), "--pages", "5")
    check_served(exact, folder, scores, CLOSE)


def test_both_probabilities_are_those_of_predict_compiled(
    run: Path, folder: Path, scores: pa.Table, tmp_path: Path
) -> None:
    package = export_run(run, tmp_path / "package", "--data.folder", str(folder), "--compiled", "true")
    check_served(package, folder, scores, CLOSE, "compiled")


def test_the_export_measures_orders_with_either_type_of_tables(
    selling: Path, folder: Path, scores: pa.Table, package: Path
) -> None:
    measured = Package(selling).manifest.measured
    orders = np.concatenate(pq.read_table(folder / "test")["purchases"].to_pylist())
    auc = roc_auc_score(orders, scores.column("order_probability").to_numpy())
    assert measured["fp32"]["order_auc"] == pytest.approx(auc, abs=1e-4)
    assert all(0 < abs(measured["fp32"][name] - measured["int8"][name]) < 0.05 for name in ORDERS[1:])
    card = (selling / "README.md").read_text()
    assert "| calibration | order_auc | order_logloss | order_calibration |" in card
    assert "Probabilities of a click and of an order" in card
    said = str(compare_packages(selling, selling, Dataset.open(folder), "test", 10))
    assert "order_auc: " in said
    assert "order" not in (package / "README.md").read_text()


def test_a_split_without_orders_is_measured_by_its_clicks(run: Path, folder: Path, tmp_path: Path) -> None:
    bare = write_dataset(tmp_path / "bare", numbers=("price",))
    package = export_run(run, tmp_path / "package", "--data.folder", str(bare), "--pages", "5")
    fp32 = Package(package).manifest.measured["fp32"]
    assert "auc" in fp32 and not {*ORDERS} & {*fp32}


def test_a_graph_whose_orders_are_not_the_models_is_not_written(
    run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export.looking_up

    class Other(Model):
        def forward(self, page: object) -> Prediction:
            found = super().forward(page)
            assert found.conversion is not None
            found.conversion = found.conversion + 1
            return found

    def other(*given: object) -> Model:
        model = real(*given)  # type: ignore[arg-type]
        return Other(model.system, model.order_head)

    monkeypatch.setattr(export, "looking_up", other)
    with pytest.raises(OptionError, match="the probability of an order"):
        export.export(run / "checkpoints" / "last.ckpt", Dataset.open(folder), tmp_path / "p", compiled=False)
    assert not (tmp_path / "p").exists()


def test_the_service_answers_with_both(selling: Path) -> None:
    service, loop = Service(selling, ServiceLimits(most_seconds=3600)), Loop()
    plain = json.loads((selling / "examples.json").read_text())["requests"][0]
    try:
        answered = loop.run(post(service, plain)).plain
    finally:
        loop.stop()
    expected = Scorer(selling).answer(Request.from_plain(plain)).order_probability
    assert expected is not None
    assert answered["order_probability"] == pytest.approx(expected.tolist(), rel=1e-8)
    assert all(0 < o < c for o, c in zip(answered["order_probability"], answered["probability"], strict=True))


def test_score_writes_both(selling: Path, package: Path, tmp_path: Path) -> None:
    requests = pa.table({"items": [[1001, 1002], [1003]], "order_probability": ["own", "own"]})
    pq.write_table(requests.select(["items"]), tmp_path / "requests.parquet")
    score_files(selling, tmp_path / "requests.parquet", tmp_path / "scores")
    found = pq.read_table(tmp_path / "scores")
    assert found.column_names == ["item", "probability", "order_probability", "degree"]
    first = Scorer(selling).score(items=[1001, 1002]).order_probability
    np.testing.assert_array_equal(found.column("order_probability").to_numpy()[:2], first)
    pq.write_table(requests, tmp_path / "requests.parquet")
    with pytest.raises(DataError, match="column order_probability: the scores have a column of this name"):
        score_files(selling, tmp_path / "requests.parquet", tmp_path / "refused")
    score_files(package, tmp_path / "requests.parquet", tmp_path / "copied")  # of clicks alone: it is the caller's
    assert pq.read_table(tmp_path / "copied").column("order_probability").to_pylist() == ["own"] * 3
