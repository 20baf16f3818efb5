"""docs/extending.md, followed literally in a copy of this repository, and the package of examples/own_system."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import write_dataset
from tests.processes import clean_environment

ROOT = Path(__file__).parents[1]
RECIPES = (ROOT / "docs" / "extending.md").read_text()
FILE = re.compile(r'^```\w+ title="([^" ]+)( \(append\))?"\n(.*?)^```', re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
SMALL = ["--data.workers", "0", "--trainer.enable_progress_bar", "false", "--wandb", "off"]


def run(command: list[str], folder: Path, *paths: Path) -> str:
    """Runs a command of the docs in a folder; what it printed. `paths` are where Python looks first."""
    program = {"ccn": ["-m", "lightning_ccn.cli"], "pytest": ["-m", "pytest"], "python": []}[command[0]]
    search = os.pathsep.join(map(str, paths))
    environment = clean_environment(PYTHONPATH=search, OMP_NUM_THREADS="1", PYTHONSAFEPATH="1")
    done = subprocess.run(
        [sys.executable, *program, *command[1:]], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with every file that the recipes name, and a small dataset at data/world."""
    folder = tmp_path_factory.mktemp("extended")
    for name in ("lightning_ccn", "conf", "tests", "docs", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    write_dataset(folder / "data" / "world", numbers=("price",))
    files = FILE.findall(RECIPES)
    assert len(files) >= 12
    for name, append, text in files:
        path = folder / name
        assert path.exists() == bool(append), f"{name}: the recipe says that it is {'there' if append else 'new'}"
        path.write_text(f"{path.read_text()}\n\n{text}" if append else text)
    return folder


@pytest.mark.slow
def test_the_tests_of_the_recipes_pass(copy: Path) -> None:
    new = [name for name, _, _ in FILE.findall(RECIPES) if name.startswith("tests/")]
    printed = run(["pytest", "-q", "-p", "no:cacheprovider", *new], copy, copy)
    assert re.search(r"\d+ passed", printed) or set(printed.split("\n")[0].split()[0]) == {"."}


@pytest.mark.slow
def test_the_commands_of_the_recipes_run(copy: Path) -> None:
    blocks = [line for block in COMMANDS.findall(RECIPES) for line in block.splitlines()]
    commands = [shlex.split(line) for line in blocks if line.startswith("ccn fit") and "own_system" not in line]
    assert len(commands) == 2
    for number, command in enumerate(commands):
        run([*command, *SMALL, "--run_id", str(number)], copy, copy)
        metrics = json.loads((copy / "runs" / "default" / str(number) / "metrics.json").read_text())
        assert 0 <= metrics["brier"] <= 1  # the metric of the recipe


def test_the_new_system_is_compared_by_default(copy: Path) -> None:
    code = "from lightning_ccn.studies.comparison.protocol import default_systems; print(default_systems())"
    assert "'trigger_match'" in run(["python", "-c", code], copy, copy)


@pytest.mark.slow
def test_an_own_package_is_trained_and_compared(tmp_path: Path) -> None:
    own = tmp_path / "own_system"
    shutil.copytree(ROOT / "examples" / "own_system", own, ignore=shutil.ignore_patterns("__pycache__"))
    after = RECIPES.partition("cd examples/own_system\n")[2].partition("```")[0]
    make_data, fit, compare = (shlex.split(line) for line in after.splitlines())
    run(make_data, own, ROOT, own)
    run(["ccn", "data", "check", "data/own"], own, ROOT)
    run([*fit, *SMALL, "--run_id", "own"], own, ROOT)  # the current folder is found without being named
    folder = own / "runs" / "default" / "own"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["auc"] > 0.5 and 0 < metrics["brier"] < 1
    assert "train_shrinkage" in (folder / "metrics.csv").read_text().splitlines()[0]
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["model"]["optimizer"] == {"class_path": "own_system.SignMomentum", "init_args": {"momentum": 0.8}}
    run([*compare, "--data.workers", "0"], own, ROOT)
    compared = json.loads((own / "runs" / "own" / "compare.json").read_text())
    assert [system["title"] for system in compared["systems"]] == ["Trigger match", "SIM"]
    assert compared["systems"][0]["summary"]["brier"]["mean"] > 0
    assert (own / "runs" / "own" / "compare.html").exists()
