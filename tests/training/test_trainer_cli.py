"""`ccn fit`, `test` and `predict`, end to end on small real folders, with a real process group."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from lightning_ccn.callbacks.health_monitor import HealthMonitor
from lightning_ccn.cli import main
from lightning_ccn.evaluation.metrics import METRICS
from lightning_ccn.sharding import ShardingError
from lightning_ccn.training.run_folder import run_id
from lightning_ccn.training.trainer_cli import BAR_REFRESHES
from tests.data.stats import accept_changes

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false", "--data.workers", "0"]
SMALL = ["--data.batch_pages", "16", "--trainer.log_every_n_steps", "2", "--model.system.dim", "8"]


def ccn(command: str, folder: Path, runs: Path, run_id: str, *options: str) -> int:
    place = ["--runs", str(runs), "--experiment", "test", "--run_id", run_id]
    return main([command, "--data.folder", str(folder), *place, *QUIET, *SMALL, *options])


def metrics(runs: Path, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((runs / "test" / run_id / "metrics.json").read_text())
    return found


@pytest.fixture(scope="module")
def fitted(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, two epochs over the session's dataset."""
    runs = tmp_path_factory.mktemp("runs")
    assert ccn("fit", dataset, runs, "fitted", "--trainer.max_epochs", "2") == 0
    return runs / "test" / "fitted"


def test_fit_ends_with_the_metrics_that_others_rely_on(fitted: Path, dataset: Path) -> None:
    found = metrics(fitted.parents[1], "fitted")
    test_metrics = {*METRICS, "pages", "items"}
    assert test_metrics | {"oracle_auc", "attainable_auc"} <= set(found)
    assert {"train_items_per_second", "global_step", "world_size"} <= set(found)
    assert (found["global_step"], found["world_size"]) == (12, 1)
    pages = [page for path in dataset.glob("test/*.parquet") for page in pq.read_table(path).to_pylist()]
    assert found["pages"] == sum(bool(page["items"]) for page in pages)
    assert found["items"] == sum(len(page["items"]) for page in pages)
    labels = np.concatenate([page["clicks"] for page in pages])
    truth = np.concatenate([page["click_probability"] for page in pages])
    assert found["oracle_auc"] == pytest.approx(roc_auc_score(labels, truth), abs=1e-5)


def test_fit_leaves_config_plan_log_and_checkpoints_in_its_folder(fitted: Path) -> None:
    assert {"config.yaml", "plan.json", "metrics.csv", "metrics.json", "checkpoints"} <= {
        p.name for p in fitted.iterdir()
    }
    assert (fitted / "checkpoints" / "last.ckpt").exists()
    rows = list(csv.DictReader((fitted / "metrics.csv").open()))
    terms = {
        f"train_{term}" for term in ("loss", "ce", "repulsion", "attraction", "degree_clicked", "degree_unclicked")
    }
    for name in terms | {f"{term}_epoch" for term in terms} | {"lr", "table_lr", "val_auc", "val_page_gauc"}:
        assert any(row.get(name) for row in rows), name


def test_training_lowers_the_loss(fitted: Path) -> None:
    rows = csv.DictReader((fitted / "metrics.csv").open())
    losses = [float(row["train_ce_epoch"]) for row in rows if row["train_ce_epoch"]]
    assert losses[1] < losses[0]


def test_the_same_seed_gives_the_same_metrics(dataset: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert ccn("fit", dataset, tmp_path, name, "--seed_everything", "5") == 0
    timings = {"train_items_per_second", "train_seconds"}
    one, two = ({k: v for k, v in metrics(tmp_path, run).items() if k not in timings} for run in ("one", "two"))
    assert one == two


def test_a_checkpoint_tests_as_the_model_did_after_fit(fitted: Path, dataset: Path, tmp_path: Path) -> None:
    checkpoint = fitted / "checkpoints" / "last.ckpt"
    assert ccn("test", dataset, tmp_path, "again", "--ckpt_path", str(checkpoint)) == 0
    before, after = metrics(fitted.parents[1], "fitted"), metrics(tmp_path, "again")
    assert {name: before[name] for name in after} == after


def test_predict_writes_every_exposed_item_without_label_or_contrast(
    fitted: Path, make_dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("predict asked for a contrastive loss")

    monkeypatch.setattr("lightning_ccn.models.ccn.repulsion_loss", fail)
    monkeypatch.setattr("lightning_ccn.models.ccn.attraction_loss", fail)
    folder = make_dataset(numbers=("price",))
    part = next((folder / "test").glob("*.parquet"))
    pages = pq.read_table(part)
    pq.write_table(pages.drop_columns(["clicks"]), part)  # serving has no labels
    accept_changes(folder)
    checkpoint = fitted / "checkpoints" / "last.ckpt"
    out = tmp_path / "scores"
    assert ccn("predict", folder, tmp_path, "p", "--ckpt_path", str(checkpoint), "--output", str(out)) == 0
    scores = pq.read_table(out)
    assert scores.schema.names == ["page_id", "item_id", "probability"]
    expected = [(page["page_id"], item) for page in pages.to_pylist() for item in page["items"]]
    found = zip(scores["page_id"].to_pylist(), scores["item_id"].to_pylist(), strict=True)
    assert sorted(found) == sorted(expected)
    assert all(0 < p < 1 for p in scores["probability"].to_pylist())


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    last = lines[-1]
    assert last.startswith("ccn: error: "), lines
    assert not any(line.startswith("Traceback") for line in lines)
    return last


def test_a_missing_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ccn("fit", tmp_path / "nowhere", tmp_path, "r") == 2
    assert "nowhere: no such folder; data.folder names a dataset folder" in refusal(capsys)


def test_an_empty_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert ccn("fit", tmp_path / "empty", tmp_path, "r") == 2
    assert "schema.yaml is missing" in refusal(capsys)


def test_a_label_of_two_ends_training_with_its_place(
    make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_dataset(numbers=("price",))
    part = next((folder / "train").glob("*.parquet"))
    pages = pq.read_table(part).to_pylist()
    pages[3]["clicks"][0] = 2
    pq.write_table(pa.Table.from_pylist(pages, schema=pq.read_schema(part)), part)
    accept_changes(folder)
    assert ccn("fit", folder, tmp_path, "r") == 2
    assert f"{part}: row 3, column clicks: 2" in refusal(capsys)


def test_a_truncated_part_is_named(
    make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_dataset(numbers=("price",))
    part = next((folder / "train").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-100])
    assert ccn("fit", folder, tmp_path, "r") == 2
    assert f"{part}: not a complete Parquet file" in refusal(capsys)


def test_a_loss_that_is_not_a_number_stops_with_step_and_batch(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    diverges = ["--model.lr", "1e38", "--trainer.strategy.table_lr", "1e38"]
    assert ccn("fit", dataset, tmp_path, "r", *diverges) == 2
    message = refusal(capsys)
    assert "the loss is not finite at step " in message
    assert "page_id " in message
    assert "Lower model.lr" in message


def test_a_checkpoint_of_another_model_is_refused(
    fitted: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = ["--ckpt_path", str(fitted / "checkpoints" / "last.ckpt")]
    assert ccn("test", dataset, tmp_path, "r", "--model.system", "lightning_ccn.models.TAN", *checkpoint) == 2
    assert "system: CCN -> TAN" in refusal(capsys)


def test_a_checkpoint_of_other_data_is_refused_field_by_field(
    fitted: Path, make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = ["--ckpt_path", str(fitted / "checkpoints" / "last.ckpt")]
    assert ccn("test", make_dataset(users=50, numbers=("price",)), tmp_path, "r", *checkpoint) == 2
    assert "schema.tables.user.rows: 41 -> 51" in refusal(capsys)


def test_equal_labels_in_a_split_leave_auc_undefined_and_say_so(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_dataset(numbers=("price",))
    part = next((folder / "test").glob("*.parquet"))
    pages = pq.read_table(part).to_pylist()
    for page in pages:
        page["clicks"] = [0] * len(page["clicks"])
    pq.write_table(pa.Table.from_pylist(pages, schema=pq.read_schema(part)), part)
    accept_changes(folder)
    with pytest.warns(UserWarning, match="test split: auc undefined: every one of the .* labels is 0"):
        assert ccn("fit", folder, tmp_path, "r") == 0
    assert metrics(tmp_path, "r")["auc"] is None


def test_an_unknown_option_names_itself(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        ccn("fit", dataset, tmp_path, "r", "--model.system.temprature", "0.5")
    assert caught.value.code == 2
    assert "temprature" in capsys.readouterr().err


def test_an_option_of_the_model_that_cannot_work_is_one_line(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ccn("fit", dataset, tmp_path, "r", "--model.system.scale", "0.5") == 2
    assert "model.system.init_args: with scale xi 0.5 the angles" in refusal(capsys)
    assert ccn("fit", dataset, tmp_path, "r", "--model.system.heads", "7") == 2
    assert "model.system.init_args: heads: an item's embedding of width 40 cannot be split into 7" in refusal(capsys)


@pytest.mark.parametrize("own", [None, "TQDMProgressBar"])
def test_the_progress_bar_is_not_redrawn_after_each_step_and_ones_own_takes_its_place(
    own: str | None, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = []
    monkeypatch.setattr(
        HealthMonitor, "setup", lambda _, trainer, *__, **___: bars.append(trainer.progress_bar_callback)
    )
    words = ["fit", "--data.folder", str(dataset), "--runs", str(tmp_path), "--test_after_fit", "false"]
    words += ["--wandb", "off", "--data.workers", "0", "--trainer.max_steps", "1", "--trainer.limit_val_batches", "0"]
    assert main(words + (["--trainer.callbacks+", f"lightning.pytorch.callbacks.{own}"] if own else [])) == 0
    (bar,) = bars
    assert type(bar).__name__ == (own or "RichProgressBar")
    assert own or bar.refresh_rate == BAR_REFRESHES


def test_any_system_can_have_the_listwise_loss(dataset: Path, tmp_path: Path) -> None:
    system = ["--model.system", "lightning_ccn.models.TAN", "--model.listwise_weight", "0.5"]
    assert ccn("fit", dataset, tmp_path, "r", *system) == 0
    rows = list(csv.DictReader((tmp_path / "test" / "r" / "metrics.csv").open()))
    ce, listwise, loss = (
        next(float(row[f"train_{name}_epoch"]) for row in rows if row[f"train_{name}_epoch"])
        for name in ("ce", "listwise", "loss")
    )
    assert loss == pytest.approx(ce + 0.5 * listwise, rel=1e-5)


def test_another_strategy_is_refused_in_words(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ccn("fit", dataset, tmp_path, "r", "--trainer.strategy", "ddp") == 2
    assert "DDPStrategy, which cannot shard embedding tables" in refusal(capsys)


def test_two_runs_of_one_second_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda _: "20260101-000000")
    names = []
    for _ in range(3):
        monkeypatch.delenv("CCN_RUN_ID", raising=False)
        names.append(run_id(tmp_path))
    assert names == ["20260101-000000", "20260101-000000-2", "20260101-000000-3"]
    assert run_id(tmp_path) == names[-1]  # a rank that Lightning starts inherits the name
    monkeypatch.delenv("CCN_RUN_ID")


def test_a_runs_folder_that_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("CCN_RUN_ID", raising=False)
    with pytest.raises(ShardingError, match=r"cannot make a run's folder there .* name another with --runs"):
        run_id(tmp_path / "file" / "default")


def test_sigterm_ends_with_a_line_and_a_code_of_its_own(dataset: Path, tmp_path: Path) -> None:
    place = ["--data.folder", str(dataset), "--runs", str(tmp_path), "--experiment", "test", "--run_id", "r"]
    command = [sys.executable, "-m", "lightning_ccn.cli", "fit", *place, *QUIET, *SMALL, "--trainer.max_epochs", "9999"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MASTER_", "CCN_RUN_ID"))}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        log = tmp_path / "test" / "r" / "metrics.csv"
        end = time.monotonic() + 60
        while not (log.exists() and log.stat().st_size) and time.monotonic() < end:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "ccn: error: ended by SIGTERM; --ckpt_path last continues this run" in said
