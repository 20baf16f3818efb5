"""What a run prints is what its user needs, and nothing of other packages' noise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_ccn.cli import main
from tests.processes import clean_environment

# Every line that a run of two epochs prints beside its two tables and W&B's lines.
EXPECTED = [
    r"GPU available: .*, used: .*",
    r"Initializing distributed: GLOBAL_RANK: \d, MEMBER: \d/\d",
    r"[\d,]+ parameters on this rank, [\d,]+ of them trainable",
    r"\S+ \S+ training from step 0 on",
    r"checkpoint \S+: training paused .* s",
    r"\S+ \S+ saved after step \d+",
    r"`Trainer.fit` stopped: `max_epochs=2` reached.",
    r"Everything of this run is in \S+ \(.*\)\.",
]
PLAN = r"table +rows +dim +dtype .*|\w+ +\d+ +8 +float32 .*|[\d.]+ GiB of weights and .* state over \d rank\(s\); .*"
METRICS = r"[┏┡└].*|┃ metric .*|│ \w+ +│ .* │"
OPTIONS = ["--trainer.max_epochs", "2", "--data.batch_pages", "16", "--data.workers", "0", "--model.system.dim", "8"]
OPTIONS += ["--trainer.log_every_n_steps", "2", "--trainer.enable_progress_bar", "false", "--wandb", "off"]


def run(words: list[str], folder: Path) -> str:
    """Everything that a command of `ccn` prints, on both streams."""
    environment = clean_environment(PYTHONPATH=os.pathsep.join(sys.path), COLUMNS="200")  # so that no line wraps
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "srun").write_text("#!/bin/sh\n")  # Lightning warns where a machine has it
    (folder / "bin" / "srun").chmod(0o755)
    environment["PATH"] = f"{folder / 'bin'}{os.pathsep}{environment['PATH']}"
    command = [sys.executable, "-P", "-m", "lightning_ccn.cli", *words]  # -P: as the console script, without the folder
    done = subprocess.run(
        command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_fit_prints_only_what_its_user_needs(ranks: int, dataset: Path, tmp_path: Path) -> None:
    place = ["--data.folder", str(dataset), "--runs", str(tmp_path), "--run_id", "quiet"]
    # row-wise tables use the most kinds of collective operations
    world = [
        "--trainer.devices",
        str(ranks),
        "--trainer.strategy.plan",
        "{item: row_wise}",
        "--trainer.accelerator",
        "cpu",
    ]
    printed = [line for line in run(["fit", *place, *OPTIONS, *world], tmp_path).splitlines() if line.strip()]
    known = "|".join([*EXPECTED, PLAN, METRICS])
    assert [line for line in printed if not re.fullmatch(known, line)] == []
    for expected in EXPECTED:
        assert any(re.fullmatch(expected, line) for line in printed), expected


def test_a_class_in_the_current_folder_can_be_named(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = "from lightning_ccn.models import TAN\n\nclass OwnSystem(TAN): pass\n"
    (tmp_path / "beside_me.py").write_text(own)
    system = ["--model.system", "beside_me.OwnSystem"]
    place = ["--data.folder", str(dataset), "--runs", "runs", "--run_id", "own"]
    run(["fit", *place, *OPTIONS, *system, "--trainer.limit_train_batches", "2"], tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main(["plan", "--data.folder", str(dataset), *system]) == 0
    assert "it fits on 1 rank" in capsys.readouterr().out
    assert "beside_me.OwnSystem" in (tmp_path / "runs" / "default" / "own" / "config.yaml").read_text()
