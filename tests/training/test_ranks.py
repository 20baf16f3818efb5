"""Every system of conf/model on two real ranks: it learns what one rank learns."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from lightning_ccn.cli import main
from tests.sharding.ranks import on_ranks

MODELS = sorted((Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))
OF_THE_RUN = {"train_items_per_second", "train_seconds", "world_size"}


def fitted(ranks: int, model: Path, dataset: Path, runs: Path) -> Path:
    """Fits on so many ranks, with the two largest tables cut and elsewhere; the run's folder."""
    options = {
        "--config": model,
        "--data.folder": dataset,
        "--data.batch_pages": 16,
        "--data.workers": 0,
        "--runs": runs,
        "--run_id": ranks,
        "--test_after_fit": "false",
        "--trainer.accelerator": "cpu",
        "--trainer.devices": ranks,
        "--trainer.enable_progress_bar": "false",
        "--trainer.enable_model_summary": "false",
        "--trainer.strategy.plan": '{"item": "row_wise", "user": "table_wise:0"}',
    }
    words = [str(word) for pair in options.items() for word in pair]
    assert on_ranks(ranks, main, args=["fit", *words]) == [0] * ranks
    return runs / "default" / str(ranks)


def metrics(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return found


def loss(run: Path) -> float:
    """Of the epoch, contrast and intent included."""
    lines = csv.DictReader((run / "metrics.csv").open())
    (found,) = [float(line["train_loss_epoch"]) for line in lines if line["train_loss_epoch"]]
    return found


@pytest.mark.parametrize("model", MODELS, ids=[model.stem for model in MODELS])
def test_two_ranks_learn_what_one_does(model: Path, dataset: Path, tmp_path: Path) -> None:
    one, two = (fitted(ranks, model, dataset, tmp_path) for ranks in (1, 2))
    assert loss(two) == pytest.approx(loss(one), rel=1e-5)
    found, expected = metrics(two), metrics(one)
    assert (found["world_size"], expected["world_size"]) == (2, 1)
    assert expected["global_step"] == 6
    for metric in expected.keys() - OF_THE_RUN:
        assert found[metric] == pytest.approx(expected[metric], rel=1e-3), metric
    plan = json.loads((two / "plan.json").read_text())["tables"]
    assert plan["item"]["placement"] == "row_wise"
