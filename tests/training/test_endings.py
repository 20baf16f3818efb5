"""How commands end that do not get to their end: what they say, and what they leave behind."""

from __future__ import annotations

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
from lightning_ccn.data.new_folder import OWNER, part_of
from lightning_ccn.sharding import read_manifest
from tests.conftest import write_dataset
from tests.data.test_new_folder import written_by_another
from tests.processes import clean_environment

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false", "--data.workers", "0"]
SMALL = ["--data.batch_pages", "16", "--trainer.log_every_n_steps", "2"]
INTERRUPTER = "tests.training.interrupter.Interrupter"


def command(name: str, folder: Path, runs: Path, *options: str) -> list[str]:
    return [name, "--data.folder", str(folder), "--runs", str(runs), *QUIET, *SMALL, *options]


def happens(**arguments: object) -> list[str]:
    """Options for something that happens to the run from outside, see `Interrupter`."""
    return [
        f"--trainer.callbacks+={INTERRUPTER}",
        *(f"--trainer.callbacks.{name}={value}" for name, value in arguments.items()),
    ]


def in_a_process(args: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command as a process group of its own, as a terminal does."""
    environment = clean_environment(PYTHONPATH=os.pathsep.join(sys.path))
    python = [sys.executable, "-W", "ignore", "-m", "lightning_ccn.cli"]
    return subprocess.run(
        [*python, *args], env=environment, capture_output=True, text=True, timeout=300, start_new_session=True
    )


@pytest.mark.parametrize(
    "wrong",
    [
        ("--data.folder", "nowhere"),
        ("--model.system.heads", "7"),
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
    assert main(command("fit", dataset, tmp_path, "--run_id", "r", "--model.system.heads", "7")) == 2
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


def continue_with(checkpoint: Path) -> str:
    return (
        f"ccn: interrupted; to continue from {checkpoint}, add --experiment default --run_id r --ckpt_path last to the "
        "same command\n"
    )


@pytest.mark.parametrize(
    ("moment", "step"),
    [
        ({"hook": "setup"}, None),
        ({"hook": "on_train_start"}, None),
        ({"hook": "on_train_batch_end", "call": 2}, 3),
        ({"hook": "on_validation_batch_end"}, 6),
        ({"hook": "on_test_batch_start"}, 6),
    ],
    ids=lambda moment: moment["hook"] if isinstance(moment, dict) else "",
)
def test_ctrl_c_saves_and_says_how_to_go_on(
    moment: dict[str, object], step: int | None, dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)  # ignored in a job of a shell's background
    assert main(command("fit", dataset, tmp_path, "--run_id", "r", *happens(**moment))) == CTRL_C
    said = capfd.readouterr().err
    last = tmp_path / "default" / "r" / "checkpoints" / "last.ckpt"
    if step is None:
        assert said.endswith("ccn: interrupted; there is no checkpoint to continue from\n")
        assert not list(tmp_path.glob("default/*"))
        return
    assert said.endswith(continue_with(last))
    assert said.count("ccn: stops after this batch, and a fit saves a checkpoint; Ctrl-C again ends it at once\n") == 1
    assert read_manifest(last)["global_step"] == step
    assert signal.getsignal(signal.SIGINT) is before
    assert main(command("fit", dataset, tmp_path, "--run_id", "r", "--ckpt_path", "last")) == 0


def test_a_second_ctrl_c_ends_at_once(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twice = happens(hook="on_train_batch_start", call=4, times=2)
    assert main(command("fit", dataset, tmp_path, "--run_id", "r", "--save_every", "0", *twice)) == CTRL_C
    last = tmp_path / "default" / "r" / "checkpoints" / "last.ckpt"
    assert capsys.readouterr().err.endswith(continue_with(last))
    assert read_manifest(last)["global_step"] < 4  # not saved again


# the first press alone is tested on ranks in tests/callbacks/test_save_and_stop.py too
@pytest.mark.slow
@pytest.mark.parametrize("times", [pytest.param(1, marks=pytest.mark.large), 2])
def test_ctrl_c_in_the_terminal_of_two_ranks_ends_both_without_noise(times: int, dataset: Path, tmp_path: Path) -> None:
    pressed = happens(hook="on_train_batch_start", call=4, times=times, group=True)
    world = ["--trainer.devices", "2", "--trainer.accelerator", "cpu", "--data.workers", "1", "--save_every", "0"]
    done = in_a_process(command("fit", dataset, tmp_path, "--run_id", "r", *world, *pressed))
    assert done.returncode == CTRL_C, done.stderr
    assert done.stderr.endswith(continue_with(tmp_path / "default" / "r" / "checkpoints" / "last.ckpt"))
    for noise in ("Traceback", "terminated", "error", "stopped on request"):
        assert noise not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("ccn: ")]
    assert len(lines) == 2, lines  # what happens at once, and how to go on
    assert "is_fx_tracing" not in done.stderr


@pytest.mark.slow  # tests/data/test_workers.py has the words, test_resume.py a rank that ends alone
def test_a_killed_worker_of_one_rank_ends_both_in_words(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", pages={"train": 6000, "validation": 24, "test": 24})  # more than a pipe
    killed = happens(hook="on_train_batch_start", call=2, worker=True, rank=1)
    world = ["--trainer.devices", "2", "--trainer.accelerator", "cpu", "--data.workers", "1"]
    done = in_a_process(command("fit", dataset, tmp_path, "--run_id", "r", *world, *killed))
    assert done.returncode != 0
    assert len(re.findall(r"ccn: error: a data worker of this rank .* was killed by SIGKILL", done.stderr)) == 1
    assert "Traceback" not in done.stderr


def test_predictions_are_whole_or_not_there_and_never_mixed(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command("fit", dataset, tmp_path, "--run_id", "r", "--test_after_fit", "false")) == 0
    checkpoint = ["--ckpt_path", str(tmp_path / "default" / "r" / "checkpoints" / "last.ckpt")]
    out = tmp_path / "scores"
    stopped = part_of(out)  # of an earlier attempt, on more ranks
    stopped.mkdir()
    (stopped / OWNER).touch()
    (stopped / "part-00007.parquet").write_text("half")
    mine = tmp_path / "scores.part"
    mine.mkdir()
    predict = command("predict", dataset, tmp_path, "--run_id", "p", "--output", str(out), *checkpoint)
    assert main(predict) == 0
    assert [path.name for path in out.iterdir()] == ["part-00000-00000.parquet"]
    assert not stopped.exists() and mine.exists()
    scored = pq.read_table(out)
    assert main(predict) == 2
    assert f"{out}: exists and is not empty; remove it, or name another with --output" in capsys.readouterr().err
    assert pq.read_table(out).equals(scored)


def test_of_two_predictions_into_one_folder_the_second_is_refused(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command("fit", dataset, tmp_path, "--run_id", "r", "--test_after_fit", "false")) == 0
    predict = command("predict", dataset, tmp_path, "--ckpt_path", str(tmp_path / "default" / "r"))
    with written_by_another(tmp_path / "default" / "r" / "predictions") as first:
        assert main(predict) == 2
        assert f"predictions: process {first.pid} on " in capsys.readouterr().err
    stopped = happens(hook="on_predict_batch_start")
    assert main([*predict, *stopped]) == CTRL_C
    assert not list((tmp_path / "default" / "r").glob("*predictions*"))
    assert main(predict) == 0
