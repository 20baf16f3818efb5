"""`ccn export`: what a package says is what the model says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest

from lightning_ccn.cli import main
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.export.measure import MeasuredPages
from lightning_ccn.models.system import Prediction, System
from lightning_ccn.nn.head import PageMLP
from lightning_ccn.nn.tables import PageEmbedding
from lightning_ccn.serving import Scorer
from tests.export.checkpoints import export_run, train

CLOSE = 1e-6


class ReadsClicks(System):
    """A system whose score depends on clicks, which nobody has when a page is served."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        self.embedding = PageEmbedding(dataset.schema, 4)
        self.head = PageMLP(self.embedding.user_dim, self.embedding.item_dim, (4,))

    def forward(self, batch):  # type: ignore[no-untyped-def]
        e = self.embedding(batch)
        logit = self.head(e.user, e.target, batch.page)
        return Prediction(logit if batch.clicks is None else logit + batch.clicks)


def predicted(run: Path, folder: Path, out: Path) -> np.ndarray:
    """The probabilities that `ccn predict` writes of the test split, in the order of the pages' ids."""
    words = ["predict", "--ckpt_path", str(run), "--data.folder", str(folder), "--output", str(out)]
    assert main([*words, "--trainer.enable_progress_bar", "false"]) == 0
    scores = pq.read_table(out)
    order = np.argsort(scores.column("page_id").to_numpy(), kind="stable")  # the items of a page stay in order
    return scores.column("probability").to_numpy()[order]


def served(package: Path, folder: Path) -> np.ndarray:
    scorer = Scorer(package)
    pages = MeasuredPages(Dataset.open(folder), "test", 10_000, scorer.manifest)
    scores = pages.by_scorer(scorer)
    assert (np.diff(scores.page_id) > 0).all()
    return scores.probability


@pytest.mark.parametrize("system", ["wide_deep", "dihn"])
def test_a_package_scores_a_split_as_predict_does(system: str, package_data: Path, tmp_path: Path) -> None:
    check_parity(system, package_data, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("system", ["din", "sim", "dian", "tan", "tan_bare", "ccn_without_tsi", "tan_bounded"])
def test_so_does_a_package_of_any_other_system(system: str, package_data: Path, tmp_path: Path) -> None:
    check_parity(system, package_data, tmp_path)


@pytest.mark.slow
def test_so_does_din_with_dice(package_data: Path, tmp_path: Path) -> None:
    check_parity("din", package_data, tmp_path, "--model.system.init_args.activation", "dice")


def check_parity(system: str, folder: Path, place: Path, *options: str) -> None:
    run = train(folder, place / "runs", system, *options)
    package = export_run(run, place / "package", "--data.folder", str(folder))
    of_model, of_package = predicted(run, folder, place / "scores"), served(package, folder)
    assert np.ptp(of_model) > 0.02, "scores that are all alike would show nothing"
    np.testing.assert_allclose(of_package, of_model, atol=CLOSE)


def test_a_package_of_ccn_scores_as_predict_does(
    package: Path, package_run: Path, package_data: Path, tmp_path: Path
) -> None:
    of_model = predicted(package_run, package_data, tmp_path / "scores")
    np.testing.assert_allclose(served(package, package_data), of_model, atol=CLOSE)


@pytest.mark.slow
def test_a_compiled_graph_scores_as_the_onnx_graph(package_run: Path, package_data: Path, tmp_path: Path) -> None:
    words = ["export", "--ckpt_path", str(package_run), "--data.folder", str(package_data)]
    assert main([*words, "--output", str(tmp_path / "package")]) == 0
    compiled = Scorer(tmp_path / "package", engine="compiled")
    pages = MeasuredPages(Dataset.open(package_data), "test", 10_000, compiled.manifest)
    by_compiled = pages.by_scorer(compiled).probability
    np.testing.assert_allclose(by_compiled, pages.by_scorer(Scorer(tmp_path / "package")).probability, atol=CLOSE)


@pytest.mark.slow
def test_a_checkpoint_of_two_ranks_is_exported_by_one_process(package_data: Path, tmp_path: Path) -> None:
    run = train(package_data, tmp_path / "runs", "ccn", "--trainer.devices", "2")
    package = export_run(run, tmp_path / "package", "--data.folder", str(package_data))
    of_model = predicted(run, package_data, tmp_path / "scores")
    np.testing.assert_allclose(served(package, package_data), of_model, atol=CLOSE)


@pytest.mark.parametrize(("dtype", "bytes_a_value", "off"), [("fp16", 2, 1e-3), ("int8", 1, 2e-2)])
def test_smaller_tables_change_scores_little_and_say_how_much(
    dtype: str, bytes_a_value: int, off: float, package: Path, package_run: Path, package_data: Path, tmp_path: Path
) -> None:
    data = ["--data.folder", str(package_data)]
    smaller = export_run(package_run, tmp_path / dtype, *data, "--table_dtype", dtype)
    full, small = served(package, package_data), served(smaller, package_data)
    assert 0 < np.abs(small - full).max() < off
    values = np.load(smaller / "tables" / "item.values.npy", mmap_mode="r")
    assert values.itemsize == bytes_a_value
    measured = json.loads((smaller / "package.json").read_text())["measured"]
    assert 0 < abs(measured[dtype]["logloss"] - measured["fp32"]["logloss"]) < off
    assert f"| {dtype} |" in (smaller / "README.md").read_text()


def test_the_graph_has_the_target_alone_and_no_loss(package: Path) -> None:
    graph = onnx.load(package / "model.onnx").graph
    assert {entry.name for entry in graph.input} == {
        *("user", "item", "target", "trigger", "short", "short_lengths", "long", "long_lengths"),
        *("target_group", "trigger_group", "numbers"),
    }
    assert [entry.name for entry in graph.output] == ["probability", "degree"]
    operators = {node.op_type for node in graph.node}
    # what the losses of nn/contrastive.py are made of, and no forward is
    assert not operators & {
        "Log",
        "Acos",
        "LogSoftmax",
        "ScatterND",
        "ScatterElements",
        "CumSum",
        "NonZero",
        "Loop",
        "If",
    }


def test_a_candidate_is_scored_alike_whatever_stands_beside_it(package: Path) -> None:
    scorer = Scorer(package)
    page = {"user": {"user": 1003, "city": 1001}, "trigger": 1004, "short": [1001, 1002], "long": [1005, 1001, 1009]}
    alone = [scorer.score(items=[item], **page).probability[0] for item in (1001, 1007, 1030)]
    together = scorer.score(items=[1030, 1007, 1001, 1050, 1001], **page).probability
    np.testing.assert_allclose(together[[2, 1, 0]], alone, atol=CLOSE)
    assert together[2] == together[4]


def test_a_system_that_needs_more_than_a_request_is_refused(
    package_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--data.folder", str(package_data), "--runs", str(tmp_path / "runs"), "--run_id", "r"]
    words += ["--model.system", "tests.export.test_export.ReadsClicks", "--data.workers", "0"]
    assert main([*words, "--trainer.max_steps", "2", "--trainer.enable_progress_bar", "false"]) == 0
    export = ["export", "--ckpt_path", str(tmp_path / "runs" / "default" / "r"), "--data.folder", str(package_data)]
    assert main([*export, "--output", str(tmp_path / "package"), "--compiled", "false"]) == 2
    said = capsys.readouterr().err
    assert "ReadsClicks: cannot be served" in said
    assert "clicks" in said
    assert not (tmp_path / "package").exists()


def test_a_checkpoint_that_does_not_say_how_its_system_was_built_is_refused(
    package_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "--ckpt_path", "tests/saved_by_0_1_0/epoch0.ckpt", "--data.folder", str(package_data)]
    assert main([*words, "--output", str(tmp_path / "package")]) == 2
    assert "train it one step further" in capsys.readouterr().err


def test_data_of_other_ids_are_refused(
    package_run: Path, package_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(package_data, tmp_path / "other")
    ids = pq.read_table(other / "vocabulary" / "item.parquet")
    pq.write_table(ids.take(list(range(len(ids)))[::-1]), other / "vocabulary" / "item.parquet")
    words = ["export", "--ckpt_path", str(package_run), "--data.folder", str(other)]
    assert main([*words, "--output", str(tmp_path / "package")]) == 2
    assert "vocabulary/item.parquet" in capsys.readouterr().err
    assert not (tmp_path / "package").exists()
