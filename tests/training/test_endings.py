"""How commands end that do not get to their end: what they say, and what they leave behind."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lightning_ccn.cli import CTRL_C, main

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false", "--data.workers", "0"]
SMALL = ["--data.batch_pages", "16", "--trainer.log_every_n_steps", "2"]
OF_RANKS = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "CCN_RUN_ID")


def command(name: str, folder: Path, runs: Path, *options: str) -> list[str]:
    return [name, "--data.folder", str(folder), "--runs", str(runs), *QUIET, *SMALL, *options]


def process(args: list[str]) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k not in OF_RANKS}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    python = [sys.executable, "-W", "ignore", "-m", "lightning_ccn.cli"]
    pipe = subprocess.PIPE
    return subprocess.Popen([*python, *args], env=environment, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize(
    "wrong",
    [
        ("--data.folder", "nowhere"),
        ("--model.system.heads", "5"),
        ("--trainer.strategy.plan", "{item: diagonal}"),
        ("--data.batch_pages", "0"),
        ("--trainer.enable_checkpointing", "false"),
        ("--trainer.limit_train_batches", "2.5"),
        ("--trainer.devices", "17", "--trainer.accelerator", "cpu"),
    ],
    ids=["data", "model", "plan", "batch", "checkpoints", "lightning", "ranks"],
)
def test_a_fit_that_fails_before_its_first_step_leaves_no_folder(
    wrong: tuple[str, ...], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CCN_RUN_ID", raising=False)
    assert main(command("fit", dataset, tmp_path, *wrong)) == 2
    assert main(command("fit", dataset, tmp_path, "--run_id", "named", *wrong)) == 2
    assert not list(tmp_path.glob("default/*"))


def test_a_folder_that_was_there_before_is_left_alone(dataset: Path, tmp_path: Path) -> None:
    notes = tmp_path / "default" / "r" / "plan.json"
    notes.parent.mkdir(parents=True)
    notes.write_text("{}")
    assert main(command("fit", dataset, tmp_path, "--run_id", "r", "--model.system.heads", "5")) == 2
    assert notes.exists()


def test_a_run_that_has_trained_keeps_its_folder(
    make_dataset: Callable[..., Path], edit: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_dataset()
    edit(folder, "test", lambda columns: columns["clicks"][3].append(1))
    assert main(command("fit", folder, tmp_path, "--run_id", "r")) == 2
    assert list((tmp_path / "default" / "r" / "checkpoints").glob("*.ckpt"))


def test_too_many_ranks_are_refused_before_any_is_started(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command("fit", dataset, tmp_path, "--trainer.devices", "17", "--trainer.accelerator", "cpu")) == 2
    said = capsys.readouterr().err
    assert said.endswith(
        "ccn: error: 17 ranks cannot share a global batch of 16 pages: make data.batch_pages a multiple of 17\n"
    )
    assert "Initializing distributed" not in said


def test_ctrl_c_ends_with_the_way_to_go_on_and_no_noise(dataset: Path, tmp_path: Path) -> None:
    options = ["--run_id", "r", "--trainer.max_epochs", "9999", "--trainer.max_time", "00:00:05:00"]
    options += ["--save_every", "2", "--checkpoint.save_top_k", "0"]
    with process(command("fit", dataset, tmp_path, *options)) as fit:
        assert fit.stderr is not None
        started = list(itertools.takewhile(lambda line: "saved after step" not in line, fit.stderr))
        fit.send_signal(signal.SIGINT)  # the next save is two seconds away
        _, said = fit.communicate(timeout=300)
    assert fit.returncode == CTRL_C, said
    *_, last = said.strip().splitlines()
    assert re.fullmatch(
        r"ccn: interrupted; to continue from \S+\.ckpt, add "
        r"--experiment default --run_id r --ckpt_path last to the same command",
        last,
    )
    assert "Traceback" not in said
    assert not any("is_fx_tracing" in line for line in started)
    going_on = command("fit", dataset, tmp_path, "--run_id", "r", "--ckpt_path", "last", "--trainer.max_steps", "1")
    assert main([*going_on, "--trainer.max_epochs", "9999"]) == 0


def test_predictions_are_whole_or_not_there_and_never_mixed(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command("fit", dataset, tmp_path, "--run_id", "r", "--test_after_fit", "false")) == 0
    checkpoint = ["--ckpt_path", str(tmp_path / "default" / "r" / "checkpoints" / "last.ckpt")]
    out = tmp_path / "scores"
    stopped = tmp_path / "scores.part"  # of an earlier attempt, on more ranks
    stopped.mkdir()
    (stopped / "part-00007.parquet").write_text("half")
    predict = command("predict", dataset, tmp_path, "--run_id", "p", "--output", str(out), *checkpoint)
    assert main(predict) == 0
    assert [path.name for path in out.iterdir()] == ["part-00000.parquet"]
    assert not stopped.exists()
    scored = pq.read_table(out)
    assert main(predict) == 2
    assert f"{out}: exists and is not empty; remove it, or name another with --output" in capsys.readouterr().err
    assert pq.read_table(out).equals(scored)
