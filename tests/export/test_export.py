"""`ccn export`: what a package says is what the model says."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest

from lightning_ccn.cli import main
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.ragged import rows_of
from lightning_ccn.export.compare_packages import compare_packages
from lightning_ccn.models.system import Prediction, System
from lightning_ccn.nn.head import PageMLP
from lightning_ccn.nn.tables import PageEmbedding
from lightning_ccn.serving import Request, Scorer
from lightning_ccn.serving.graph_inputs import GraphInputs
from lightning_ccn.serving.id_lookup import hash_integers, index_of
from lightning_ccn.serving.package import Package
from tests.export.checkpoints import GIVEN, OF_LOSSES, export_run, predicted, served, train

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


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["bag", "sequence"])
def test_a_checkpoint_of_two_ranks_is_exported_by_one_process(kernel: str, package_data: Path, tmp_path: Path) -> None:
    options = ["--trainer.devices", "2", "--model.system.item_kernel", kernel]
    run = train(package_data, tmp_path / "runs", "ccn", *options)
    package = export_run(run, tmp_path / "package", "--data.folder", str(package_data))
    of_model = predicted(run, package_data, tmp_path / "scores")
    np.testing.assert_allclose(served(package, package_data), of_model, atol=CLOSE)


@pytest.fixture(scope="module")
def int8_package(package_run: Path, package_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported CCN with int8 tables and the vectors of its items."""
    options = ["--data.folder", str(package_data), "--table_dtype", "int8", "--vectors", "true"]
    return export_run(package_run, tmp_path_factory.mktemp("int8") / "package", *options)


def test_int8_tables_change_scores_little_and_say_how_much(
    package: Path, int8_package: Path, package_data: Path
) -> None:
    check_smaller(package, int8_package, package_data, "int8", 1, 2e-2)


@pytest.mark.slow
def test_fp16_tables_change_scores_less(package: Path, package_run: Path, package_data: Path, tmp_path: Path) -> None:
    options = ["--data.folder", str(package_data), "--table_dtype", "fp16"]
    check_smaller(package, export_run(package_run, tmp_path / "fp16", *options), package_data, "fp16", 2, 1e-3)


def check_smaller(package: Path, smaller: Path, package_data: Path, dtype: str, bytes_a_value: int, off: float) -> None:
    full, small = served(package, package_data), served(smaller, package_data)
    assert 0 < np.abs(small - full).max() < off
    values = np.load(smaller / "tables" / "item.values.npy", mmap_mode="r")
    assert values.itemsize == bytes_a_value
    measured = json.loads((smaller / "package.json").read_text())["measured"]
    assert 0 < abs(measured[dtype]["logloss"] - measured["fp32"]["logloss"]) < off
    card = (smaller / "README.md").read_text()
    assert "| tables as | auc | page_gauc | logloss | calibration |" in card
    assert f"| {dtype} |" in card


def test_the_graph_has_the_target_alone_and_no_loss(package: Path) -> None:
    graph = onnx.load(package / "model.onnx").graph
    assert {entry.name for entry in graph.input} == GIVEN - {"wide"}
    assert [entry.name for entry in graph.output] == ["probability", "degree"]
    assert not {node.op_type for node in graph.node} & OF_LOSSES


def test_a_candidate_is_scored_alike_whatever_stands_beside_it(package: Path) -> None:
    scorer = Scorer(package)

    def score(items: list[int]) -> np.ndarray:
        return scorer.score(items, {"user": 1003, "city": 1001}, 1004, [1001, 1002], [1005, 1001, 1009]).probability

    alone = [score([item])[0] for item in (1001, 1007, 1030)]
    together = score([1030, 1007, 1001, 1050, 1001])
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


def test_a_package_is_compared_with_an_older_one_by_the_ids_of_the_log(
    package: Path, package_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = Dataset.open(package_data)
    alike = compare_packages(package, package, dataset, "test", 10_000)
    assert (alike.change, alike.shift, alike.first_changed) == (0, 0, 0)
    assert alike.rank_correlation == pytest.approx(1)
    assert alike.page_correlation == pytest.approx(1)
    # the older package knows the same ids by other rows
    other = shutil.copytree(package_data, tmp_path / "other")
    mixed = np.concatenate([[0], 1 + np.random.default_rng(0).permutation(60)])  # the new row of each old one
    table = np.load(package / "tables" / "item.values.npy")
    older = shutil.copytree(package, tmp_path / "older")
    manifest = Package(package).manifest
    for path in [*(older / "items").glob("*.npy"), *(older / "vectors").glob("*.npy")]:
        if "tags" not in path.name:
            np.save(path, _moved(np.load(path), mixed))
    np.save(older / "tables" / "item.values.npy", _moved(table, mixed))
    ids = 1_000 + np.arange(60)
    for part, values in index_of(hash_integers(ids[np.argsort(mixed[1:])])).items():
        np.save(older / "ids" / f"item.{part}.npy", values)
    tags = Package(package).attribute_lists["tags"]
    moved = rows_of(tags, np.argsort(mixed))
    np.save(older / "items" / "tags.npy", moved.values)
    np.save(older / "items" / "tags.offsets.npy", moved.offsets)
    (older / "package.json").write_text(replace(manifest, files={}).to_json())
    assert compare_packages(older, package, Dataset.open(other), "test", 10_000).change == pytest.approx(0, abs=CLOSE)


def _moved(rows: np.ndarray, to: np.ndarray) -> np.ndarray:
    moved = np.empty_like(rows)
    moved[to] = rows
    return moved


def test_a_comparison_says_what_changes(package: Path, int8_package: Path, package_data: Path) -> None:
    found = compare_packages(package, int8_package, Dataset.open(package_data), "test", 10_000)
    old, new = served(package, package_data), served(int8_package, package_data)
    assert found.change == pytest.approx(np.abs(new - old).mean())
    assert found.shift == pytest.approx((new - old).mean(), abs=1e-9)
    assert found.changed_most[0][1] >= found.changed_most[-1][1] > 0
    assert 0.9 < found.rank_correlation <= 1
    assert str(found).startswith("auc: ")


def test_item_vectors_are_what_the_graph_gets_by_the_ids_of_the_log(int8_package: Path) -> None:
    table = pq.read_table(int8_package / "item_vectors")
    assert table.column("item_id").to_pylist() == list(range(1000, 1060))
    rows = Package(int8_package).ids["item"](table.column("item_id").to_pylist(), "items")
    expected = GraphInputs(Package(int8_package)).items(rows)
    np.testing.assert_array_equal(np.stack(table.column("vector").to_numpy()), expected)


def test_the_examples_are_pages_of_the_split_that_can_be_asked_for(package: Path, package_data: Path) -> None:
    examples = json.loads((package / "examples.json").read_text())["requests"]
    scorer, rows = Scorer(package), pq.read_table(package_data / "test").to_pylist()
    assert len(examples) == 5
    with_items = [row for row in rows if row["items"]]
    expected = served(package, package_data)
    asked = [scorer.answer(Request.from_plain(example)).probability for example in examples]
    np.testing.assert_allclose(np.concatenate(asked), expected[: sum(map(len, asked))], atol=CLOSE)
    for example, row in zip(examples, with_items, strict=False):
        assert example["items"] == [999 + item if item else None for item in row["items"]]
        assert example["user"]["user"] == 999 + row["user"]
