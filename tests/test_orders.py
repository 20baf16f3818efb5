"""Orders end to end: `model.order_weight` trains a second head, which is measured, saved, scored, and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from lightning_ccn.cli import main
from tests.conftest import write_dataset
from tests.data.test_orders import rewrite
from tests.sharding.ranks import on_ranks
from tests.training.test_resume import CRASHED, arguments, tensors

WITH_ORDERS = ["--model.order_weight", "1"]
QUIET = ["--data.workers", "0", "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
MODEL = ["--model.system", "lightning_ccn.models.SIM", "--model.system.dim", "8", "--data.batch_pages", "16"]


def ccn(command: str, folder: Path, runs: Path, run_id: str, *options: str) -> int:
    place = ["--data.folder", str(folder), "--runs", str(runs), "--run_id", run_id]
    return main([command, *place, *QUIET, *(MODEL if command == "fit" else []), *options])


def metrics(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("orders") / "log", orders=True)


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with an order head."""
    runs = tmp_path_factory.mktemp("runs")
    assert ccn("fit", folder, runs, "r", *WITH_ORDERS) == 0
    return runs / "default" / "r"


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[[int], str]:
    """The one line that a command ends with, given its exit code."""

    def line(code: int) -> str:
        assert code == 2
        found = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ccn: error: ")]
        assert len(found) == 1
        return found[0]

    return line


@pytest.mark.slow
def test_the_metrics_are_those_of_the_predicted_orders(folder: Path, run: Path, tmp_path: Path) -> None:
    checkpoint = run / "checkpoints" / "last.ckpt"
    in_order = ["--data.lanes", "1", "--output", str(tmp_path / "s")]  # of the files
    assert ccn("predict", folder, tmp_path, "p", "--ckpt_path", str(checkpoint), *in_order) == 0
    scores, pages = pq.read_table(tmp_path / "s"), pq.read_table(folder / "test")
    assert scores.column_names == ["page_id", "item_id", "probability", "order_probability"]
    assert scores["item_id"].to_pylist() == [item for page in pages["items"].to_pylist() for item in page]
    click, order = (scores[name].to_numpy() for name in scores.column_names[2:])
    assert (order < click).all()
    orders, found = np.concatenate(pages["purchases"].to_pylist()), metrics(run)
    assert found["order_auc"] == pytest.approx(roc_auc_score(orders, order), abs=1e-4)
    assert found["order_logloss"] == pytest.approx(log_loss(orders, order), abs=1e-6)
    assert found["order_calibration"] == pytest.approx(order.sum() / orders.sum(), abs=1e-5)
    assert {name for name in found if name.startswith("val_order")} == {
        *("val_order_auc", "val_order_logloss", "val_order_calibration")
    }


@pytest.mark.slow
def test_without_the_option_there_is_no_head_and_no_column(folder: Path, tmp_path: Path) -> None:
    assert ccn("fit", folder, tmp_path, "r", "--trainer.max_steps", "1", "--trainer.limit_val_batches", "0") == 0
    assert not [name for name in metrics(tmp_path / "default" / "r") if "order" in name]
    checkpoint = tmp_path / "default" / "r" / "checkpoints" / "last.ckpt"
    assert not [name for name in tensors(checkpoint) if "order_head" in name]
    assert ccn("predict", folder, tmp_path, "p", "--ckpt_path", str(checkpoint), "--output", str(tmp_path / "s")) == 0
    assert pq.read_table(tmp_path / "s").column_names == ["page_id", "item_id", "probability"]


def test_a_log_without_orders_is_one_line_before_the_training(
    dataset: Path, tmp_path: Path, refusal: Callable[[int], str]
) -> None:
    said = refusal(ccn("fit", dataset, tmp_path, "r", *WITH_ORDERS))
    assert str(dataset / "train") in said and "column purchases: missing, and model.order_weight needs it" in said
    assert not (tmp_path / "default" / "r" / "checkpoints").exists()


@pytest.mark.slow
def test_a_checkpoint_and_a_model_that_differ_in_the_head_are_one_line(
    folder: Path, run: Path, tmp_path: Path, refusal: Callable[[int], str]
) -> None:
    checkpoint = ["--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
    said = refusal(ccn("test", folder, tmp_path, "t", *checkpoint, "--model.order_weight", "0"))
    assert "the checkpoint has an order head: set model.order_weight above 0, as in its run" in said


@pytest.mark.slow
def test_a_test_split_without_the_column_is_scored_by_its_clicks(
    make_dataset: Callable[..., Path], run: Path, tmp_path: Path
) -> None:
    folder = make_dataset(orders=True)
    rewrite(folder, "test", lambda columns: None)
    checkpoint = ["--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
    with pytest.warns(UserWarning, match="has no column purchases, so orders are not measured"):
        assert ccn("test", folder, tmp_path, "t", *checkpoint) == 0
    found = metrics(tmp_path / "default" / "t")
    assert found["auc"] == pytest.approx(metrics(run)["auc"]) and "order_auc" not in found


@pytest.mark.slow
def test_a_fine_tuning_adds_a_head_to_a_checkpoint_without_one(folder: Path, tmp_path: Path) -> None:
    short = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "0", "--test_after_fit", "false"]
    assert ccn("fit", folder, tmp_path, "old", *short) == 0
    old, new = (tmp_path / "default" / name / "checkpoints" / "last.ckpt" for name in ("old", "new"))
    still = ["--model.lr", "1e-30", "--trainer.strategy.table_lr", "0"]
    assert ccn("fit", folder, tmp_path, "new", *short, *WITH_ORDERS, *still, "--finetune", str(old)) == 0
    before, after = tensors(old), tensors(new)
    weights = [key for key in before if key.startswith("module.")]
    assert weights and all(before[key].equal(after[key]) for key in weights)
    assert [key for key in after if key.startswith("module.order_head.mlp")]


@pytest.mark.slow
def test_a_fine_tuning_trains_a_head_alone_on_a_frozen_click_model(folder: Path, tmp_path: Path) -> None:
    short = ["--trainer.max_steps", "2", "--trainer.limit_val_batches", "0", "--test_after_fit", "false"]
    assert ccn("fit", folder, tmp_path, "old", *short) == 0
    old, new = (tmp_path / "default" / name / "checkpoints" / "last.ckpt" for name in ("old", "new"))
    before = {key: value for key, value in tensors(old).items() if key.startswith(("module.model.", "tables."))}
    layers = {key.split(".")[2] for key in before if key.startswith("module.model.")}
    tables = {key.split(".")[1] for key in before if key.startswith("tables.")}
    frozen = ["--model.freeze", f"[{','.join(sorted(layers | tables))}]", "--finetune", str(old)]
    assert ccn("fit", folder, tmp_path, "new", *short, *WITH_ORDERS, *frozen) == 0
    after = tensors(new)
    assert layers and tables and all(before[key].equal(after[key]) for key in before if "weight" in key)
    frozen_head = ["--model.freeze", "[order_head]", "--finetune", str(new)]
    assert ccn("fit", folder, tmp_path, "still", *short, *WITH_ORDERS, *frozen_head) == 0
    still = tensors(tmp_path / "default" / "still" / "checkpoints" / "last.ckpt")
    heads = [key for key in after if key.startswith("module.order_head.mlp")]
    assert heads and all(after[key].equal(still[key]) for key in heads)
    assert not all(still[key].equal(after[key]) for key in after if key.startswith("module.model."))


@pytest.mark.slow
def test_a_resumed_run_keeps_the_head_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    options = [*WITH_ORDERS, "--data.workers", "0"]
    assert main(arguments(folder, tmp_path, "whole", None, *options)) == 0
    assert main(arguments(folder, tmp_path, "halves", 7, *options)) == CRASHED
    assert main(arguments(folder, tmp_path, "halves", None, *options, "--ckpt_path", "last")) == 0
    whole, halves = (tensors(tmp_path / "test" / name / "checkpoints" / "last.ckpt") for name in ("whole", "halves"))
    heads = [key for key in whole if "order_head" in key]
    assert heads and whole.keys() == halves.keys()
    assert [key for key in whole if not whole[key].equal(halves[key])] == []


@pytest.mark.slow
def test_two_ranks_learn_what_one_does(folder: Path, tmp_path: Path) -> None:
    for ranks in (1, 2):
        place = ["--data.folder", str(folder), "--runs", str(tmp_path), "--run_id", str(ranks)]
        words = ["fit", *place, *QUIET, *MODEL, *WITH_ORDERS, "--trainer.accelerator", "cpu"]
        assert on_ranks(ranks, main, args=[*words, "--trainer.devices", str(ranks)]) == [0] * ranks
    one, two = (metrics(tmp_path / "default" / str(ranks)) for ranks in (1, 2))
    assert two["world_size"] == 2
    for name in ("val_order_auc", "val_order_logloss", "order_auc", "order_logloss", "order_calibration", "logloss"):
        assert two[name] == pytest.approx(one[name], rel=1e-3), name
