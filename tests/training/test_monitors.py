"""The metric that chooses the best checkpoint says whether high or low is better."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from jsonargparse import Namespace

from lightning_ccn.cli import main
from lightning_ccn.errors import OptionError
from lightning_ccn.evaluation.metrics import METRICS, Calibration
from lightning_ccn.training.monitors import settle_monitors

QUIET = ["--trainer.enable_progress_bar", "false", "--data.workers", "0", "--wandb", "off", "--test_after_fit", "false"]
SMALL = ["--data.batch_pages", "16", "--model.system.dim", "8", "--trainer.accelerator", "cpu"]


def settled(monitor: str | None, mode: str = "auto", callbacks: Any = None) -> Namespace:
    options = Namespace(
        checkpoint=Namespace(monitor=monitor, mode=mode),
        trainer=Namespace(callbacks=callbacks),
        model=Namespace(order_weight=0.0),
    )
    settle_monitors(options, "fit")
    return options


def callback(path: str, **arguments: str) -> Namespace:
    return Namespace(class_path=path, init_args=Namespace(**arguments))


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [
        ("val_auc", "max"),
        ("val_page_gauc", "max"),
        ("val_intent_auc", "max"),
        ("val_logloss", "min"),
        ("val_normalized_entropy", "min"),
    ],
)
def test_the_mode_follows_the_metric(monitor: str, mode: str) -> None:
    assert settled(monitor).checkpoint.mode == mode
    assert settled(monitor, mode).checkpoint.mode == mode
    stopping = callback("lightning.pytorch.callbacks.EarlyStopping", monitor=monitor, mode="min")  # its default
    assert settled("val_auc", callbacks=[stopping]).trainer.callbacks[0].init_args.mode == mode


def test_every_metric_but_calibration_has_a_direction() -> None:
    assert {metric for metric in METRICS.values() if metric.higher_is_better is None} <= {Calibration}


@pytest.mark.parametrize(
    ("monitor", "mode", "message"),
    [
        ("val_logloss", "max", "checkpoint.mode is max, but a lower val_logloss is better"),
        ("val_auc", "min", "checkpoint.mode is min, but a higher val_auc is better"),
        ("val_auc", "best", "checkpoint.mode is best: it must be min or max"),
        ("val_acu", "auto", "checkpoint.monitor is val_acu: there is no such metric; validations have val_auc, "),
        ("auc", "max", "checkpoint.monitor is auc: there is no such metric"),
        ("val_calibration", "auto", "nothing says whether high or low is better; give --checkpoint.mode min or max"),
        ("val_order_auc", "auto", "only a model with an order head has it; set model.order_weight above 0"),
        ("train_loss", "auto", "give --checkpoint.mode min or max"),
    ],
)
def test_what_cannot_choose_a_checkpoint_is_refused(monitor: str, mode: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        settled(monitor, mode)


def test_a_callback_that_stops_in_the_wrong_direction_is_refused() -> None:
    stopping = callback("lightning.pytorch.callbacks.EarlyStopping", monitor="val_logloss", mode="max")
    with pytest.raises(OptionError, match=r"EarlyStopping\.mode is max, but a lower val_logloss"):
        settled("val_auc", callbacks=[stopping])


def test_an_own_metric_needs_a_mode_and_an_own_callback_may_log_it() -> None:
    assert settled("train_loss", "min").checkpoint.mode == "min"
    assert settled(None).checkpoint.mode in ("min", "max")  # unused
    own = [callback("own.Profit")]
    assert settled("profit", "max", own).checkpoint.mode == "max"
    with pytest.raises(OptionError, match="there is no such metric"):
        settled("profit", "max")


def fit(folder: Path, runs: Path, *words: str) -> Path:
    assert (
        main(["fit", "--data.folder", str(folder), "--runs", str(runs), "--run_id", "r", *QUIET, *SMALL, *words]) == 0
    )
    return runs / "default" / "r"


def test_the_checkpoint_with_the_lowest_log_loss_is_kept(dataset: Path, tmp_path: Path) -> None:
    words = ["--checkpoint.monitor", "val_logloss", "--trainer.max_epochs", "3", "--trainer.val_check_interval", "3"]
    run = fit(dataset, tmp_path, *words)
    assert yaml.safe_load((run / "config.yaml").read_text())["checkpoint"]["mode"] == "min"
    rows = [row for row in csv.DictReader((run / "metrics.csv").open()) if row.get("val_logloss")]
    losses = {int(row["step"]) + 1: float(row["val_logloss"]) for row in rows}
    assert len(losses) == 6
    best = min(losses, key=lambda step: losses[step])
    kept = [path.name for path in (run / "checkpoints").iterdir() if path.name != "last.ckpt"]
    assert [name.partition("step=")[2] for name in kept] == [f"{best}.ckpt"]


def test_a_validation_without_clicks_chooses_no_checkpoint(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_dataset()
    part = next((folder / "validation").glob("*.parquet"))
    pages = pq.read_table(part)
    clicks = pages.column_names.index("clicks")
    none = [[0] * len(page) for page in pages["clicks"].to_pylist()]
    changed = pages.set_column(clicks, pages.schema.field("clicks"), pa.array(none, pages.schema.field("clicks").type))
    pq.write_table(changed, part)
    assert main(["data", "check", str(folder), "--write_stats", "true"]) == 0
    with pytest.warns(UserWarning, match="val.*auc undefined"):
        run = fit(folder, tmp_path)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.ckpt"]
