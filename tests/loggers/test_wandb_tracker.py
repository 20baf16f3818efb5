"""Weights & Biases with its real client: what it writes offline, and what happens when it or its server fails."""

from __future__ import annotations

import csv
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import wandb
import yaml
from lightning.pytorch.utilities import rank_zero_only

from lightning_ccn import signals
from lightning_ccn.cli import main
from lightning_ccn.evaluation.plots import calibration_plot
from lightning_ccn.loggers import wandb_tracker
from lightning_ccn.loggers.metrics_csv import MetricsCSV
from lightning_ccn.loggers.wandb_key import has_key
from lightning_ccn.loggers.wandb_tracker import WandbTracker
from lightning_ccn.provenance import git_state
from lightning_ccn.training.run_folder import run_id
from tests.loggers.wandb_file import WandbFile, read
from tests.loggers.wandb_server import serving

OPTIONS = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false", "--data.workers", "0"]
OPTIONS += ["--data.batch_pages", "16", "--trainer.log_every_n_steps", "2", "--model.system.dim", "8"]
KEY = "0123456789" * 4
TIMINGS = {"train_items_per_second", "train_seconds"}


def fit(dataset: Path, runs: Path, run_id: str, mode: str, *options: str) -> Path:
    place = ["--data.folder", str(dataset), "--runs", str(runs), "--experiment", "shop", "--run_id", run_id]
    assert main(["fit", *place, *OPTIONS, "--wandb", mode, *options]) == 0
    return runs / "shop" / run_id


def metrics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def lines(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "metrics.csv").open()))


@pytest.fixture(scope="module")
def tracked(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two epochs, within a job of SLURM."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SLURM_JOB_ID", "4711")
        environment.setenv("SLURM_RESTART_COUNT", "2")
        return fit(dataset, tmp_path_factory.mktemp("runs"), "a", "offline", "--trainer.max_epochs", "2")


@pytest.fixture(scope="module")
def written(tracked: Path) -> WandbFile:
    """What its client wrote."""
    (file,) = read(tracked)
    return file


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """A client that reads the environment anew, in which WANDB_MODE and a key are not set."""
    wandb.teardown()
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(wandb_tracker, "FINISH_SECONDS", 1)
    yield monkeypatch
    wandb.teardown()


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What is told to the user about W&B."""
    messages: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    listener, logger = Listener(), logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addHandler(listener)
    yield messages
    logger.removeHandler(listener)


def about_wandb(said: list[str]) -> list[str]:
    return [message for message in said if "W&B" in message]


# --------------------------------------------------------------------------------------------- what is written


def test_the_run_holds_every_option_the_plan_and_the_job(tracked: Path, written: WandbFile) -> None:
    saved = yaml.safe_load((tracked / "config.yaml").read_text())
    assert {key: written.config[key] for key in saved if key != "run_id"} == {
        k: v for k, v in saved.items() if k != "run_id"
    }
    assert written.config["plan"] == json.loads((tracked / "plan.json").read_text())
    assert written.config["slurm"] == {"job_id": "4711", "restart_count": "2"}
    assert (written.run.display_name, written.run.run_group, written.run.job_type) == ("shop/a", "shop", "fit")
    assert written.run.run_id == (tracked / "wandb_id").read_text()
    assert written.exit_code == 0


def test_every_number_of_metrics_csv_is_in_the_run(tracked: Path, written: WandbFile) -> None:
    for line in lines(tracked):
        step = int(line.pop("step"))
        numbers = {name: float(value) for name, value in line.items() if value}
        assert any(
            logged["trainer/global_step"] == step
            and all(logged.get(name) == pytest.approx(numbers[name]) for name in numbers)
            for logged in written.history
        ), (step, numbers)
    names = {name for line in written.history for name in line}
    assert {
        "train_loss",
        "train_loss_epoch",
        "val_auc",
        "auc",
        "lr",
        "table_lr",
        "grad_norm",
        "items_per_second",
    } <= names


def test_histograms_and_images_are_logged_for_each_validation_and_the_test(tracked: Path, written: WandbFile) -> None:
    for split, prefix, steps in (("validation", "val_", [5, 11]), ("test", "", [12])):
        for name in ("calibration", "page_auc_by_size"):
            images = written.column(f"{split}/{name}")
            assert [step for step, _ in images] == steps
            for _, image in images:
                assert (written.path.parent / "files" / image["path"]).read_bytes().startswith(b"\x89PNG")
        clicked, unclicked = (written.column(f"{split}/degree_{label}") for label in ("clicked", "unclicked"))
        counts = [
            sum(one["values"]) + sum(two["values"]) for (_, one), (_, two) in zip(clicked, unclicked, strict=True)
        ]
        assert counts == [items for _, items in written.column(f"{prefix}items")]


def test_the_summary_is_metrics_json_and_the_best_validation(tracked: Path, written: WandbFile) -> None:
    expected = metrics(tracked)
    assert {name: written.summary[name] for name in expected} == expected
    assert written.summary["best_val_auc"] == pytest.approx(max(value for _, value in written.column("val_auc")))


def test_checkpoints_are_artifacts_by_path(tracked: Path, written: WandbFile) -> None:
    aliases = {alias: artifact for artifact in written.artifacts for alias in artifact.aliases}
    assert {"last", "best"} <= set(aliases)
    for artifact in written.artifacts:
        files = [Path(unquote(urlsplit(entry.ref).path)) for entry in artifact.manifest.contents]
        (folder,) = {file.parent for file in files}
        assert sorted(files) == sorted(folder.iterdir())
        assert (
            json.loads(artifact.metadata)["global_step"]
            == json.loads((folder / "checkpoint.json").read_text())["global_step"]
        )
    assert not list(tracked.glob("wandb/**/*.distcp"))


def test_checkpoints_are_uploaded_when_asked_for(dataset: Path, tmp_path: Path) -> None:
    options = ["--test_after_fit", "false", "--upload_checkpoints", "true"]
    folder = fit(dataset, tmp_path, "a", "offline", *options)
    (file,) = read(folder)
    assert file.artifacts
    for artifact in file.artifacts:
        for entry in artifact.manifest.contents:
            assert not entry.ref
            assert Path(entry.local_path).stat().st_size == entry.size
            assert Path(entry.local_path).is_relative_to(folder)  # and not a copy


def test_tracking_changes_no_number(tracked: Path, dataset: Path, tmp_path: Path) -> None:
    alone = fit(dataset, tmp_path, "a", "off", "--trainer.max_epochs", "2")
    assert not list(alone.glob("wandb*"))
    one, two = ({k: v for k, v in metrics(folder).items() if k not in TIMINGS} for folder in (tracked, alone))
    assert one == two


# --------------------------------------------------------------------------------------------- more than one life


def test_a_run_that_goes_on_keeps_its_id_and_its_lines_and_the_command_that_was_said_uploads_both_lives(
    dataset: Path, tmp_path: Path, client: pytest.MonkeyPatch, said: list[str]
) -> None:
    resume = ["--ckpt_path", "last_if_any"]
    fit(dataset, tmp_path, "a", "auto", "--test_after_fit", "false", "--trainer.max_epochs", "1", *resume)
    folder = fit(dataset, tmp_path, "a", "auto", "--test_after_fit", "false", "--trainer.max_epochs", "2", *resume)
    first, second = read(folder)
    assert first.run.run_id == second.run.run_id
    steps = [step for file in (first, second) for step, _ in file.column("train_loss")]
    assert steps == [1, 3, 5, 7, 9, 11]
    assert [int(line["step"]) for line in lines(folder) if line["train_loss"]] == steps

    start, end = about_wandb(said)[-2:]
    assert "no API key: `wandb login` stores one" in start
    command = shlex.split(end.partition("upload it later:  ")[2])
    with serving() as server:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # as in an active .venv
        here = {**os.environ, "PATH": path, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        sync = subprocess.run(command, env=here, capture_output=True, text=True, timeout=60)
        assert sync.returncode == 0, sync.stderr
        assert [line["trainer/global_step"] for line in server.history if "train_loss" in line] == steps


def test_lines_before_and_after_slurm_has_ended_the_client_are_kept(
    tmp_path: Path, client: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = threading.Event()
    client.setattr(signals, "_terminated", told)
    with WandbTracker(tmp_path / "shop" / "a", config={}, job_type="fit", offline=True) as tracker:
        tracker.log_metrics({"train_loss": 1.0}, 0)
        for pid in client_processes():  # SLURM signals every process of a job
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
        told.set()
        tracker.log_metrics({"train_loss": 0.5}, 1)
    _, second = read(tmp_path / "shop" / "a")  # the first had no second's time to write its line
    assert second.run.run_id == tracker.run_id
    assert second.column("train_loss") == [(0, 1.0), (1, 0.5)]
    assert nothing_is_said_of_a_print(caplog)


def test_a_fine_tuned_run_is_another_that_names_its_parent(tracked: Path, dataset: Path, tmp_path: Path) -> None:
    options = ["--finetune", str(tracked / "checkpoints" / "last.ckpt"), "--trainer.max_steps", "2"]
    (child,) = read(fit(dataset, tmp_path, "b", "offline", "--test_after_fit", "false", *options))
    parent = (tracked / "wandb_id").read_text()
    assert child.run.run_id != parent
    assert child.config["parent"] == parent
    assert child.run.notes == f"fine-tuned from {parent}"


def test_lines_of_steps_that_are_taken_again_and_a_line_cut_off_by_a_crash_are_dropped(tmp_path: Path) -> None:
    before = MetricsCSV(tmp_path, name="shop", version="a")
    for step in range(6):
        before.log_metrics({"loss": 1.0}, step)
    before.save()
    path = tmp_path / "shop" / "a" / "metrics.csv"
    path.write_text(path.read_text() + "0.")
    after = MetricsCSV(tmp_path, name="shop", version="a")
    after.start_from(4)
    after.log_metrics({"loss": 2.0, "another": 3.0}, 4)
    after.save()
    rows = [(line["step"], line["loss"], line["another"]) for line in csv.DictReader(path.open())]
    assert rows == [("0", "1.0", ""), ("1", "1.0", ""), ("2", "1.0", ""), ("3", "1.0", ""), ("4", "2.0", "3.0")]


# --------------------------------------------------------------------------------------------- what fails


def test_a_server_that_cannot_be_reached_is_said_once_and_costs_nothing_but_the_upload(
    dataset: Path, tmp_path: Path, client: pytest.MonkeyPatch, said: list[str]
) -> None:
    client.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    client.setenv("WANDB_API_KEY", KEY)
    folder = fit(dataset, tmp_path, "a", "auto")
    start, end = about_wandb(said)
    assert "offline (http://127.0.0.1:9 cannot be reached: [Errno 111] Connection refused)" in start
    assert end.endswith(f"wandb sync {folder / 'wandb'}")
    (file,) = read(folder)
    assert file.summary["auc"] == metrics(folder)["auc"]


def test_a_key_that_the_server_refuses_means_offline(
    tmp_path: Path, client: pytest.MonkeyPatch, said: list[str]
) -> None:
    with serving() as server:
        server.status = 401
        client.setenv("WANDB_BASE_URL", server.url)
        client.setenv("WANDB_API_KEY", KEY)
        with WandbTracker(tmp_path / "shop" / "a", config={}, job_type="fit") as tracker:
            tracker.log_metrics({"loss": 1.0}, 0)
    assert "W&B: offline (" in about_wandb(said)[0]
    offline = [file for file in read(tmp_path / "shop" / "a") if file.path.parent.name.startswith("offline")]
    assert [file.column("loss") for file in offline] == [[(0, 1.0)]]


def test_a_server_that_goes_away_during_training_does_not_hold_it_up(
    dataset: Path, tmp_path: Path, client: pytest.MonkeyPatch, said: list[str]
) -> None:
    with serving() as server:
        server.dies_on = "file_stream"
        client.setenv("WANDB_BASE_URL", server.url)
        client.setenv("WANDB_API_KEY", KEY)
        folder = fit(dataset, tmp_path, "a", "auto")
    start, end = about_wandb(said)
    assert server.url in start
    (file,) = read(folder)
    sync = f"wandb sync --include-online {file.path.parent}"
    assert end == f"W&B: the upload did not finish within 1 s. To upload it later:  {sync}"
    assert file.summary["auc"] == metrics(folder)["auc"]


def test_a_client_that_dies_during_training_is_said_once_and_training_goes_on(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    draw = calibration_plot

    def kill_and_draw(*sums: Any) -> Any:
        for pid in client_processes():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return draw(*sums)

    monkeypatch.setattr("lightning_ccn.callbacks.wandb_figures.calibration_plot", kill_and_draw)
    with pytest.warns(UserWarning, match="W&B failed, the run continues without it: .* wandb sync ") as warnings:
        folder = fit(dataset, tmp_path, "a", "offline")
    assert len([warning for warning in warnings if "W&B" in str(warning.message)]) == 1
    assert "auc" in metrics(folder)
    assert len([line for line in lines(folder) if line["auc"]]) == 1
    assert nothing_is_said_of_a_print(caplog)


def nothing_is_said_of_a_print(caplog: pytest.LogCaptureFixture) -> bool:
    """Whether a line can be printed without an error of the client, which would have got a copy."""
    caplog.clear()
    print("a line")
    time.sleep(0.5)  # the client's own thread logs the error
    return not [record for record in caplog.records if record.name.startswith("wandb")]


def client_processes() -> list[int]:
    """Child processes of this one that are the client's."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        name, _, rest = path.read_text().partition("(")[2].rpartition(")")
        if name == "wandb-core" and int(rest.split()[1]) == os.getpid():
            found.append(int(path.parent.name))
    return found


def test_the_commit_and_whether_files_differ_from_it_are_found(tmp_path: Path) -> None:
    assert git_state(tmp_path) == {}
    author = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }

    def git(*args: str) -> str:
        environment = {**os.environ, **author}
        return subprocess.run(
            ["git", *args], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "--initial-branch", "trunk")
    (tmp_path / "code.py").write_text("1")
    git("add", "code.py")
    git("commit", "--message", "one")
    expected = {"commit": git("rev-parse", "HEAD"), "branch": "trunk"}
    assert git_state(tmp_path) == {**expected, "changed": False}
    (tmp_path / "code.py").write_text("2")
    assert git_state(tmp_path) == {**expected, "changed": True}

    snapshot = tmp_path / "runs" / "code" / "package"
    snapshot.mkdir(parents=True)
    assert git_state(snapshot) == {}
    (snapshot.parent / "git.json").write_text('{"commit": "1234"}')
    assert git_state(snapshot) == {"commit": "1234"}


def test_only_rank_0_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    with WandbTracker(tmp_path / "shop" / "a", config={}, job_type="fit", offline=True) as tracker:
        tracker.log_metrics({"loss": 1.0}, 0)
        tracker.log_hyperparams({"plan": {}})
        tracker.log_figures({}, {}, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("machine", "found"), [("api.wandb.ai", True), ("wandb.shop.example", True), ("git.shop.example", False)]
)
def test_a_key_is_looked_for_where_wandb_login_stores_it(
    client: Any, tmp_path: Path, machine: str, found: bool
) -> None:
    (tmp_path / "netrc").write_text(f"machine {machine} login user password {KEY}\n")
    assert has_key("https://wandb.shop.example") == found


# --------------------------------------------------------------------------------------------- sweeps


def test_the_sweep_asks_for_options_that_ccn_fit_has(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # here, because this import would take every worker of pytest a second
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    sweep = yaml.safe_load((root / "conf" / "sweep.yaml").read_text())
    drawn = {
        name: {"value": choice.get("min", choice.get("values", [None])[0])}
        for name, choice in sweep["parameters"].items()
    }
    ccn, *command = create_sweep_command(sweep["command"])
    at = command.index("${args}")
    command[at : at + 1] = create_sweep_command_args({"args": drawn})["args"]
    assert ccn == "ccn"
    with pytest.raises(SystemExit) as caught:
        main([*command, "--print_config"])
    assert caught.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    for name, value in drawn.items():
        place = config
        for key in name.split("."):
            place = place[key]
        assert place == value["value"]
    assert sweep["metric"]["name"] in {"val_auc", "best_val_auc"}


def test_a_run_of_a_sweep_has_the_agents_id_and_a_folder_of_its_own_within_one_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    for drawn in ("r1", "r2"):
        monkeypatch.setenv("WANDB_RUN_ID", drawn)
        assert run_id(None) == drawn
        assert WandbTracker(tmp_path / run_id(None), config={}, job_type="fit").run_id == drawn
