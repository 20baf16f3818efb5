"""`yardstick.json`: what an item's training click rate reaches without a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightning_ccn.cli import main
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.evaluation.heuristics import heuristic_scores
from lightning_ccn.evaluation.metrics import CTRMetrics
from lightning_ccn.evaluation.yardstick import read_yardstick, write_yardstick

Make = Callable[..., Path]
FIT = ["--data.workers", "0", "--data.batch_pages", "16", "--model.system.dim", "8", "--trainer.accelerator", "cpu"]
FIT += ["--wandb", "off", "--trainer.enable_progress_bar", "false"]


def test_it_is_what_the_heuristics_say(make_dataset: Make) -> None:
    folder = make_dataset()
    metrics = CTRMetrics()
    for name, scores, clicks, lengths in heuristic_scores(folder):
        if name == "training click rate":
            metrics.update(torch.from_numpy(scores), torch.from_numpy(clicks), torch.from_numpy(lengths))
    expected = {name: float(value) for name, value in metrics.compute().items() if name in ("auc", "page_gauc")}
    assert write_yardstick(folder) == expected
    assert read_yardstick(Dataset.open(folder)) == expected


def test_one_of_other_pages_or_a_broken_one_is_not_read(make_dataset: Make) -> None:
    folder = make_dataset()
    assert read_yardstick(Dataset.open(folder)) == {}
    write_yardstick(folder)
    dataset = Dataset.open(folder)
    dataset.splits["test"].clicks += 1
    assert read_yardstick(dataset) == {}
    for text in ("", "[]", '{"counts": 3}', json.dumps({"metrics": {"auc": None}})):
        (folder / "yardstick.json").write_text(text)
        assert read_yardstick(Dataset.open(folder)) == {}


def test_a_folder_whose_items_cannot_be_compared_has_none(make_dataset: Make, tmp_path: Path) -> None:
    folder = make_dataset(pages={"train": 20, "validation": 5, "test": 0})
    assert write_yardstick(folder) is None
    assert write_yardstick(tmp_path / "nowhere") is None
    assert not (folder / "yardstick.json").exists()


def test_a_check_that_writes_stats_writes_it_and_a_run_shows_it_last(
    make_dataset: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_dataset()
    assert main(["data", "check", str(folder)]) == 0
    assert not (folder / "yardstick.json").exists()
    assert main(["data", "check", str(folder), "--write_stats", "true"]) == 0
    auc = json.loads((folder / "yardstick.json").read_text())["metrics"]["auc"]
    capsys.readouterr()
    words = ["--data.folder", str(folder), "--runs", str(tmp_path), "--run_id", "r", *FIT]
    assert main(["fit", *words]) == 0
    table = [line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
    beside = {row[1].strip(): row[3].strip() for row in table}
    assert beside["auc"] == f"{auc:.6g}"
    assert beside["logloss"] == ""
    partly = ["--trainer.limit_test_batches", "0.5", "--run_id", "part"]  # which cannot be compared
    assert main(["fit", *words, *partly]) == 0
    assert "without a model" not in capsys.readouterr().out
