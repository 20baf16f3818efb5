"""Resuming: bit for bit on the same number of ranks, and the same stream of pages on another number."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from lightning_ccn.cli import main
from lightning_ccn.sharding import newest_whole, read_manifest
from lightning_ccn.sharding.checkpoint import load_tensors
from tests.training.recorder import trained

# 96 pages in global batches of 8: 12 steps an epoch
OPTIONS = ["--data.batch_pages", "8", "--model.system.dim", "8", "--trainer.log_every_n_steps", "1"]
OPTIONS += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
OPTIONS += ["--trainer.max_epochs", "2", "--test_after_fit", "false"]
OPTIONS += ["--checkpoint.every_n_train_steps", "5", "--checkpoint.save_top_k", "-1", "--checkpoint.monitor", "null"]
CRASHED = 1


def arguments(folder: Path, runs: Path, run_id: str, crash_at: int | None, *options: str) -> list[str]:
    place = ["--data.folder", str(folder), "--runs", str(runs), "--experiment", "test", "--run_id", run_id]
    crash = [f"--trainer.callbacks.crash_at={crash_at}"] if crash_at is not None else []
    record = [
        "--trainer.callbacks=tests.training.recorder.Recorder",
        f"--trainer.callbacks.path={runs / run_id}.jsonl",
        *crash,
    ]
    return ["fit", *place, *OPTIONS, *record, *options]


def environment() -> dict[str, str]:
    """This process's, without what Lightning left in it for ranks of its own."""
    own = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "CCN_RUN_ID")
    return {k: v for k, v in os.environ.items() if k not in own} | {"PYTHONPATH": os.pathsep.join(sys.path)}


def in_a_process(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "lightning_ccn.cli", *args]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    found = {
        key: torch.empty(about["shape"], dtype=getattr(torch, about["dtype"]))
        for key, about in read_manifest(checkpoint)["tensors"].items()
    }
    load_tensors(checkpoint, found, None)
    return found


def logged(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "metrics.csv").open()))


@pytest.mark.parametrize(("crash_at", "workers"), [(7, "2"), (17, "0")])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    dataset: Path, tmp_path: Path, crash_at: int, workers: str
) -> None:
    loader = ["--data.workers", workers]
    assert main(arguments(dataset, tmp_path, "whole", None, *loader)) == 0
    assert main(arguments(dataset, tmp_path, "halves", crash_at, *loader)) == CRASHED
    assert main(arguments(dataset, tmp_path, "halves", None, *loader, "--ckpt_path", "last")) == 0
    whole, halves = (tmp_path / "test" / run / "checkpoints" / "last.ckpt" for run in ("whole", "halves"))
    expected, found = tensors(whole), tensors(halves)
    assert expected.keys() == found.keys()
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    assert trained(tmp_path / "halves.jsonl", range(24)) == trained(tmp_path / "whole.jsonl", range(24))
    timings = {"train_items_per_second", "train_seconds"}
    one, two = (json.loads((tmp_path / "test" / run / "metrics.json").read_text()) for run in ("whole", "halves"))
    assert {k: v for k, v in one.items() if k not in timings} == {k: v for k, v in two.items() if k not in timings}
    means = [
        [row["train_loss_epoch"] for row in logged(tmp_path / "test" / run) if row["train_loss_epoch"]]
        for run in ("whole", "halves")
    ]
    assert means[0][-1] == means[1][-1]


@pytest.mark.slow
def test_one_run_on_1_2_3_and_1_ranks_trains_every_page_of_every_epoch_once(dataset: Path, tmp_path: Path) -> None:
    # AdaGrad's first steps are the gradient's sign: from an empty accumulator, rounding would decide some of them
    tame = ["--data.workers", "0", "--model.initial_accumulator", "0.1", "--trainer.strategy.table_eps", "0.01"]
    ends = [(1, 5), (2, 10), (3, 20), (1, None)]  # ranks, and the step after which they are killed
    for devices, crash_at in ends:
        options = [*tame, "--trainer.devices", str(devices), "--ckpt_path", "last_if_any"]
        done = in_a_process(*arguments(dataset, tmp_path, "ranks", crash_at, *options))
        assert (done.returncode == 0) == (crash_at is None), done.stderr[-3000:]
    pages = sorted(
        page for path in dataset.glob("train/*.parquet") for page in pq.read_table(path)["page_id"].to_pylist()
    )
    for epoch in (0, 1):
        assert sorted(trained(tmp_path / "ranks.jsonl", range(12 * epoch, 12 * epoch + 12))) == pages
    assert main(arguments(dataset, tmp_path, "alone", None, *tame)) == 0
    alone, ranks = (tensors(tmp_path / "test" / run / "checkpoints" / "last.ckpt") for run in ("alone", "ranks"))
    for key in (key for key in alone if key.startswith(("tables.", "module."))):
        assert (ranks[key] - alone[key]).abs().max() < 2e-5, key


@pytest.mark.slow
def test_neither_more_ranks_nor_larger_batches_change_the_metrics(dataset: Path, tmp_path: Path) -> None:
    small = ["--data.folder", str(dataset), "--data.batch_pages", "8", "--model.system.dim", "8", "--data.workers", "0"]
    place = ["--runs", str(tmp_path), "--experiment", "test", "--run_id"]
    assert main(["fit", *small, *place, "one", "--trainer.enable_progress_bar", "false"]) == 0
    checkpoint = ["--ckpt_path", str(tmp_path / "test" / "one" / "checkpoints" / "last.ckpt")]
    done = in_a_process("test", *small, *place, "two", *checkpoint, "--trainer.devices", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    assert main(["test", *small, *place, "larger", *checkpoint, "--data.evaluation_factor", "3"]) == 0
    runs = [tmp_path / "test" / name for name in ("one", "two", "larger")]
    one, *others = (json.loads((run / "metrics.json").read_text()) for run in runs)
    for other in others:
        assert other == pytest.approx({name: one[name] for name in other}, abs=1e-6)
        assert other["pages"] == one["pages"]


@pytest.mark.slow  # tests/sharding/test_process_group.py has the words of every rank that ends alone
def test_when_a_rank_is_killed_the_other_ends_with_one_line(dataset: Path, tmp_path: Path) -> None:
    options = ["--data.workers", "0", "--trainer.devices", "2", "--trainer.callbacks.kill_rank", "1"]
    done = in_a_process(*arguments(dataset, tmp_path, "killed", 7, *options))
    assert done.returncode != 0
    assert "ccn: error: another rank ended" in done.stderr or "terminated with code -9" in done.stderr
    assert newest_whole(tmp_path / "test" / "killed" / "checkpoints") is not None
