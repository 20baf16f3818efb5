"""The `ccn` command lines of the documentation run as they are written, in the environment of a user.

Each line runs in this process, on a folder of the size of a test in place of the reader's own, and with options that
make it short. Fits of pages other than the README are checked as `ccn submit` does, up to their first step. What `make`
would run is asked from `make --dry-run`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_ccn.cli import main
from lightning_ccn.studies.comparison.compare import check
from lightning_ccn.training.preflight import Preflight
from tests.docs.test_commands import PAGES, commands
from tests.processes import clean_environment

ROOT = Path(__file__).parents[2]
RUN = Path("runs/default/ID")
READ = ["FOLDER", "data/world", "data/new", "data/old", "data/ebnerd", "data/paper_scale", "data/NAME", "data/stable"]
READ += ["data/scenarios"]
MADE_BY_THE_READER = (
    "trigger_match.yaml",
    "ccn_adam.yaml",
    "own_system.yaml",
    "data/own",
    "my.yaml",
    "s3://",
)  # as a recipe says
IN_A_SENTENCE = (
    "ccn data build",
    "ccn data check",
    "ccn data cut",
    "ccn fit --config conf/experiment/default.yaml",
)  # without what they need
TOOLS = ("bash", "sh", "make", "sed", "git", "test", "grep", "env", "expand", "nvidia-smi", "python3")  # no sbatch
FIT = ["--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "2", "--trainer.limit_test_batches", "2"]
FIT += ["--data.batch_pages", "16", "--trainer.val_check_interval", "1.0", "--trainer.devices", "1"]
SCORE = ["--data.workers", "0", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
WORLD = ["--users", "200", "--items", "150", "--categories", "5", "--sellers", "9", "--promotions", "2"]
WORLD += ["--train_pages", "120", "--validation_pages", "20", "--test_pages", "20"]


def expanded(line: str, venv: Path) -> list[list[str]]:
    """The `ccn` commands of a line, also through `make`; none if it only names a command."""
    words = shlex.split(line, comments=True)
    if words[:1] == ["make"]:
        given = {name: value for name, _, value in (word.partition("=") for word in words[1:]) if value}
        filled = [word + {"CKPT=": f"{RUN}/checkpoints/last.ckpt"}.get(word, "FOLDER") if word.endswith("=") else word
                  for word in words[1:]]  # fmt: skip
        filled = [re.sub(r"^(CONFIG|ARGS|OUT)=FOLDER$", r"\1=", word) for word in filled]
        command = ["make", "--dry-run", "-C", str(ROOT), "VENV=" + given.get("VENV", str(venv)), "FLAVOUR=cpu"]
        done = subprocess.run(
            [*command, *(word for word in filled if not word.startswith(("VENV=", "FLAVOUR=")))],
            capture_output=True, text=True, env=clean_environment(MAKEFLAGS="", MAKELEVEL=""),
        )  # fmt: skip
        assert done.returncode == 0, f"{line}: {done.stderr}"
        lines = done.stdout.replace("\\\n", " ").splitlines()
        return [shlex.split(text)[1:] for text in lines if text.startswith(f"{venv}/bin/ccn ")]
    names = [Path(word).name for word in words]
    if "ccn" not in names or len(words) - names.index("ccn") < 3:
        return []
    return [words[names.index("ccn") + 1 :]]


def all_commands(venv: Path) -> dict[tuple[str, ...], str]:
    """Each distinct command -> the page and the line that it comes from."""
    found: dict[tuple[str, ...], str] = {}
    for page in PAGES:
        for line in commands(page):
            for words in expanded(line, venv):
                if line in IN_A_SENTENCE or any(name in word for word in words for name in MADE_BY_THE_READER):
                    continue
                alike = tuple("FOLDER" if word in READ and words[0] == "fit" else word for word in words)
                found.setdefault(alike, f"{page.name}: {line}")
    return found


@pytest.fixture(scope="module")
def place(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder, with data, a finished run, and `make`'s stamp of an installation."""
    folder = tmp_path_factory.mktemp("reader")
    for name in READ:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copytree(dataset, folder / name)
    for name in ("venv", "bin"):
        (folder / name).mkdir()
    for tool in TOOLS:
        if path := shutil.which(tool):
            (folder / "bin" / tool).symlink_to(path)
    for stamp in ("installed-cpu", "installed-dev"):
        (folder / "venv" / stamp).touch()
    words = ["fit", "--config", "conf/experiment/default.yaml", "--data.folder", str(folder / "FOLDER")]
    assert main([*words, *SCORE, *FIT, "--wandb", "off", "--runs", str(folder / "runs"), "--run_id", "ID"]) == 0
    return folder


@pytest.fixture(autouse=True)
def as_a_user(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment without what this suite sets, and without a W&B key."""
    for name in os.environ:
        if name not in clean_environment():
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("PATH", str(place / "bin"))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.chdir(place)


def shortened(words: list[str]) -> list[str]:
    """The command with options that make it short; a later option wins."""
    name = words[0]
    if any("help" in word for word in words):
        return words
    if name == "fit":
        return [*words, *SCORE, *FIT, "--wandb", "off", "--runs", "short"]
    if name in ("predict", "test", "validate"):
        return [*words, *SCORE, "--runs", "short"]
    if name == "export":
        return [*words, "--compiled", "false", "--pages", "8"]
    if words[:2] == ["data", "world"]:
        return ["data", "world", "made", *(word.replace("N", "9") for word in words[3:]), *WORLD]
    return words


def end(words: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Runs a command; its exit code, and what it said on stderr."""
    os.environ.pop("CCN_RUN_ID", None)  # which a run gives to the ranks that it starts
    try:
        code = main(words)
    except SystemExit as caught:
        code = int(caught.code or 0)
    for made in ("made", "short", "scores", "runs/1"):
        shutil.rmtree(place / made, ignore_errors=True)
    return code, capsys.readouterr().err


def with_fewer_systems(text: str) -> str:
    """A comparison of the last of its systems and of its baseline: each more takes seconds to check."""
    baseline = re.search(r"--baseline (\S+)", text)
    if not (systems := re.search(r"--systems (\S+)", text)):
        return text
    names = systems[1].split(",")
    kept = [name for name in names if name == names[-1] or (baseline and Path(name).stem == baseline[1])]
    return text.replace(systems[1], ",".join(kept))


@pytest.mark.slow  # tests/docs/test_commands.py asks whether all commands and options are there
def test_every_command_line_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong, kinds, exported = {}, set(), False
    for given, line in all_commands(place / "venv").items():
        words = [word for word in given if word != "..."]
        kinds.add(" ".join(words[: 2 if words[0] == "data" else 1]))
        if words[0] == "compare":
            few = [] if "--systems" in words else ["--systems", "sim"]
            text = re.sub(r",?\.\.\.| --settings_from \S+", "", " ".join(words[1:]))  # there is no earlier comparison
            text = with_fewer_systems(text)
            text = text.replace("--leave_out scenario", "--leave_out city")  # which the data of the test have
            check([*text.split(), *few, "--output", "compared"])
            continue
        if words[0] == "serve" or (words[0] == "export" and exported):
            continue  # test_serving_page.py serves; tests/export has what the other lines export
        exported = exported or words[0] == "export"
        if words[0] == "submit":
            words = ["submit", "--dry_run", *(word for word in words[1:] if word != "--dry_run")]
            words = [word.replace("runs/EXPERIMENT/ID", str(RUN)) for word in words]
            words += ["--systems", "sim"] if "compare" in words else []
        prints = any("help" in word or word == "--print_config" for word in words)
        if words[0] == "fit" and not line.startswith("README") and not prints:
            Preflight(shortened(words)).plan(1, "cpu")  # all but the training
            continue
        code, said = end(shortened(words), place, capsys)
        absent = {"convert": "SRC", "simulate": "runs/compare", "score": "REQUESTS"}.get(
            words[1] if words[0] == "data" else words[0]
        )
        expected = code == 2 and said.startswith("ccn: error: ") if absent else code == 0
        if not expected:
            wrong[line] = f"exit {code}: {said.strip().splitlines()[-1:]}"
    assert wrong == {}
    assert {"fit", "predict", "plan", "compare", "simulate", "submit", "data check", "data world"} <= kinds


def test_a_plan_starts_no_wandb_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--config", "conf/experiment/paper_scale.yaml", "--data.folder", "FOLDER", "--world_size", "8"]
    assert end(words, place, capsys)[0] == 0
    assert "wandb" not in sys.modules or not list(place.rglob("wandb"))
