"""`diagnostics.json`: what it holds, and that the look at the untrained model leaves no trace in the training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from lightning_ccn.callbacks.diagnostics_file import DiagnosticsFile
from lightning_ccn.cli import main
from tests.sharding.ranks import on_ranks


def command(action: str, folder: Path, runs: Path, run_id: str, *options: str) -> list[str]:
    place = ["--data.folder", str(folder), "--runs", str(runs), "--experiment", "test", "--run_id", run_id]
    small = ["--data.batch_pages", "16", "--data.workers", "0", "--trainer.enable_progress_bar", "false"]
    return [action, *place, *small, *options]


def fit(folder: Path, runs: Path, run_id: str, *options: str) -> Path:
    assert main(command("fit", folder, runs, run_id, *options)) == 0
    return runs / "test" / run_id


def evidence(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "diagnostics.json").read_text())
    return found


def counts(degrees: dict[str, list[float]]) -> tuple[int, int]:
    assert len(degrees["edges"]) == len(degrees["clicked"]) + 1 == len(degrees["unclicked"]) + 1
    return int(sum(degrees["unclicked"])), int(sum(degrees["clicked"]))


def labels(dataset: Path, split: str) -> tuple[int, int]:
    """Unclicked and clicked items of a split."""
    clicks = [c for path in dataset.glob(f"{split}/*.parquet") for page in pq.read_table(path)["clicks"] for c in page]
    clicked = sum(clicks.as_py() for clicks in clicks)
    return len(clicks) - clicked, clicked


@pytest.fixture(scope="module")
def fitted(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(dataset, tmp_path_factory.mktemp("runs"), "fitted")


def test_it_counts_every_item_of_the_test_split_and_of_the_validation_split_before(fitted: Path, dataset: Path) -> None:
    found = evidence(fitted)
    calibration = found["calibration"]
    metrics = json.loads((fitted / "metrics.json").read_text())
    assert sum(calibration["items"]) == metrics["items"]
    predicted = sum(n * p for n, p in zip(calibration["items"], calibration["predicted"], strict=True))
    clicked = sum(n * c for n, c in zip(calibration["items"], calibration["clicked"], strict=True))
    assert predicted / clicked == pytest.approx(metrics["calibration"], rel=1e-6)
    assert counts(found["degrees"]["before"]) == labels(dataset, "validation")
    assert counts(found["degrees"]["after"]) == labels(dataset, "test")
    sizes = found["page_auc_by_size"]
    assert len(sizes["low"]) == len(sizes["high"]) == len(sizes["pages"]) == len(sizes["page_gauc"])
    known = [value for value in sizes["page_gauc"] if value is not None]
    assert known and all(0 <= value <= 1 for value in known)


def test_the_degrees_before_are_those_of_the_untrained_model(dataset: Path, tmp_path: Path) -> None:
    run = fit(dataset, tmp_path, "r", "--model.lr", "1e-30", "--trainer.strategy.table_lr", "1e-30")
    degrees = evidence(run)["degrees"]
    assert sum(degrees["before"]["clicked"]) > 0
    # an untrained CCN is at a half everywhere, and this one has not moved
    assert all(0.4 < edge < 0.6 for edge in degrees["before"]["edges"] + degrees["after"]["edges"])


def test_a_system_without_a_degree_has_none(dataset: Path, tmp_path: Path) -> None:
    run = fit(dataset, tmp_path, "r", "--model.system", "lightning_ccn.models.SIM")
    assert evidence(run)["degrees"] is None
    assert evidence(run)["calibration"]["items"]


def test_the_look_at_the_untrained_model_leaves_no_trace_in_training(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--data.workers", "1", "--trainer.val_check_interval", "0.5"]  # a worker's seed is a random number
    one = fit(dataset, tmp_path, "with", *options)
    state = torch.get_rng_state()
    monkeypatch.delattr(DiagnosticsFile, "on_train_start")
    two = fit(dataset, tmp_path, "without", *options)
    assert torch.equal(torch.get_rng_state(), state)
    with_it, without = (json.loads((run / "metrics.json").read_text()) for run in (one, two))
    for timed in ("train_items_per_second", "train_seconds"):
        del with_it[timed], without[timed]
    assert with_it == without
    assert evidence(two)["degrees"]["before"] is None
    assert evidence(one)["degrees"]["after"] == evidence(two)["degrees"]["after"]


def test_what_was_before_outlives_a_resume_and_a_later_test(fitted: Path, dataset: Path) -> None:
    before = evidence(fitted)
    checkpoint = str(fitted / "checkpoints" / "last.ckpt")
    again = command("fit", dataset, fitted.parents[1], "fitted", "--ckpt_path", checkpoint, "--trainer.max_epochs", "2")
    assert main(again) == 0
    assert evidence(fitted)["degrees"]["before"] == before["degrees"]["before"]
    assert main(command("test", dataset, fitted.parents[1], "fitted", "--ckpt_path", checkpoint)) == 0
    assert evidence(fitted)["degrees"]["before"] == before["degrees"]["before"]


def test_a_run_that_begins_anew_forgets_what_was_before_it_was_killed(dataset: Path, tmp_path: Path) -> None:
    left = tmp_path / "test" / "r" / "diagnostics.json"
    left.parent.mkdir(parents=True)
    left.write_text(json.dumps({"degrees": {"before": {"edges": [0.0, 1.0]}, "after": None}}))
    run = fit(dataset, tmp_path, "r", "--trainer.limit_val_batches", "0", "--checkpoint.monitor", "null")
    assert evidence(run)["degrees"]["before"] is None


def test_two_ranks_give_the_evidence_of_one(fitted: Path, dataset: Path, tmp_path: Path) -> None:
    ranks = ["--trainer.accelerator", "cpu", "--trainer.devices", "2"]
    assert on_ranks(2, main, args=command("fit", dataset, tmp_path, "two", *ranks)) == [0, 0]
    one, two = evidence(fitted), evidence(tmp_path / "test" / "two")
    assert two["degrees"]["before"] == one["degrees"]["before"]
    assert counts(two["degrees"]["after"]) == labels(dataset, "test")
    assert two["page_auc_by_size"]["pages"] == one["page_auc_by_size"]["pages"]
    assert sum(two["calibration"]["items"]) == sum(one["calibration"]["items"])
