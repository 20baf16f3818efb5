"""How long ago behaviours were is the same in a package as in training."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lightning_ccn.cli import main
from lightning_ccn.data import time_gaps
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.padding import PaddedBehaviours
from lightning_ccn.data.parquet import value_column
from lightning_ccn.data.reader import PageBatches
from lightning_ccn.export.compare_packages import compare_packages
from lightning_ccn.export.measure import page_requests
from lightning_ccn.export.one_page import OnePage
from lightning_ccn.serving import Request, Scorer
from lightning_ccn.serving.graph_inputs import GraphInputs
from lightning_ccn.serving.package import Package
from lightning_ccn.serving.score_files import score_files
from tests.export.checkpoints import GAPS, export_run, served, train

CLOSE = 1e-6


def test_the_gaps_of_a_request_are_those_of_its_page_in_a_batch(timed_package: Path, package_data: Path) -> None:
    opened = Package(timed_package)
    opened.manifest = replace(opened.manifest, short_length=3, long_length=2)  # fewer than some pages have
    inputs = GraphInputs(opened)
    batches = PageBatches(
        Dataset.open(package_data), "test", batch_pages=1, short_length=3, long_length=2, with_gaps=True
    )
    rows, seen = batches.row_group(0), 0
    ready = batches.collator.prepare(rows)
    for at, request in enumerate(page_requests(rows, np.arange(len(value_column(rows, "page_id"))), opened.manifest)):
        batch = batches.collator.batch(ready.between(at, at + 1))
        given = inputs(request)
        assert list(given) == [field.name for field in fields(OnePage) if field.name in given], "as it was compiled"
        page = OnePage(**{name: torch.from_numpy(value) for name, value in given.items()})
        for name in ("short_of_page", "long_of_target", "long_of_trigger"):
            trained, asked = gaps(getattr(batch, name)), gaps(getattr(page, name))
            assert trained == asked
            seen += sum(map(len, asked))
    assert seen > 100, "a few gaps would show nothing"


def gaps(behaviours: PaddedBehaviours) -> list[list[int]]:
    """The gaps of each segment."""
    assert behaviours.gap is not None
    return [row[seen].tolist() for row, seen in zip(behaviours.gap, behaviours.seen, strict=True)]


@pytest.fixture(scope="module")
def run(package_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a DEI2N that reads times."""
    return train(package_data, tmp_path_factory.mktemp("dei2n") / "runs", "dei2n")


@pytest.fixture(scope="module")
def package_of_times(run: Path, package_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its package."""
    return export_run(run, tmp_path_factory.mktemp("dei2n") / "package", "--data.folder", str(package_data))


@pytest.mark.slow
def test_examples_and_files_of_raw_times_score_as_their_pages(
    package_of_times: Path, package_data: Path, tmp_path: Path
) -> None:
    examples = json.loads((package_of_times / "examples.json").read_text())["requests"]
    scorer, expected = Scorer(package_of_times), served(package_of_times, package_data)
    asked = np.concatenate([scorer.answer(Request.from_plain(example)).probability for example in examples])
    np.testing.assert_allclose(asked, expected[: len(asked)], atol=CLOSE)
    earlier = [{**example, "time": example["time"] + 10**7} for example in examples]
    moved = np.concatenate([scorer.answer(Request.from_plain(example)).probability for example in earlier])
    assert np.abs(moved - asked).max() > 1e-4, "the gaps must count, or nothing is shown"
    lists = {key: [example[key] for example in examples] for key in ("items", "trigger", "short", "long")}
    lists |= {key: [example[key] for example in examples] for key in ("time", "short_times", "long_times")}
    lists |= {key: [e["user"][key] for e in examples] for key in examples[0]["user"]}
    lists |= {"price": [e["numbers"]["price"] for e in examples], "age": [e["page_numbers"]["age"] for e in examples]}
    pq.write_table(pa.table(lists), tmp_path / "requests.parquet")
    score_files(package_of_times, tmp_path / "requests.parquet", tmp_path / "scores")
    np.testing.assert_array_equal(pq.read_table(tmp_path / "scores").column("probability").to_numpy(), asked)
    assert {entry.name for entry in onnx.load(package_of_times / "model.onnx").graph.input} >= GAPS


@pytest.mark.slow
def test_a_package_that_reads_times_is_compared_with_one_that_does_not(
    package_of_times: Path, package: Path, package_data: Path
) -> None:
    dataset = Dataset.open(package_data)
    assert compare_packages(package_of_times, package_of_times, dataset, "test", 100).change == 0
    assert compare_packages(package, package_of_times, dataset, "test", 100).change > 0


@pytest.mark.slow
def test_an_export_whose_gaps_are_not_those_of_training_is_not_written(
    run: Path, package_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "lightning_ccn.serving.request_times.gap_buckets", lambda page, at: time_gaps.gap_buckets(page, at) // 2
    )
    words = ["export", "--ckpt_path", str(run), "--data.folder", str(package_data), "--compiled", "false"]
    assert main([*words, "--output", str(tmp_path / "package")]) == 2
    assert "the package is not written: its graph gives an item of page_id" in capsys.readouterr().err
    assert not (tmp_path / "package").exists()
