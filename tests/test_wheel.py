"""A wheel of the package, installed without the checkout, runs from any folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import clean_environment

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the wheel installs, and nothing else."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("lightning_ccn", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist"), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (wheel,) = (folder / "dist").glob("*.whl")
    shutil.unpack_archive(wheel, folder / "site", format="zip")
    return folder / "site"


def ccn(installed: Path, folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Runs `ccn` of the wheel in a folder; the wheel comes before this checkout, which the environment may have."""
    environment = clean_environment(PYTHONPATH=str(installed), PYTHONSAFEPATH="1", OMP_NUM_THREADS="1")
    command = [sys.executable, "-m", "lightning_ccn.cli", *args]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_wheel_has_the_configurations_the_templates_and_the_type_marker(installed: Path) -> None:
    package = installed / "lightning_ccn"
    shipped = {path.relative_to(package / "conf") for path in (package / "conf").rglob("*.yaml")}
    assert shipped == {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    assert (package / "py.typed").exists()
    here = {path.relative_to(ROOT / "lightning_ccn") for path in (ROOT / "lightning_ccn").rglob("*.html")}
    assert here and here == {path.relative_to(package) for path in package.rglob("*.html")}


def test_fit_finds_the_configurations_from_any_folder(installed: Path, dataset: Path, tmp_path: Path) -> None:
    configs = ["--config", "conf/experiment/default.yaml", "--config", "conf/model/tan.yaml"]
    options = ["--data.folder", str(dataset), "--data.workers", "0", "--run_id", "r", "--wandb", "off"]
    done = ccn(installed, tmp_path, "fit", *configs, *options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "auc" in json.loads((tmp_path / "runs" / "default" / "r" / "metrics.json").read_text())


@pytest.mark.slow
def test_an_own_system_is_compared_from_outside_the_checkout(installed: Path, dataset: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(ROOT / "examples" / "own_system", own, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--data.folder", str(dataset), "--data.workers", "0", "--quick", "--output", "compared"]
    done = ccn(installed, own, "compare", "--systems", "own_system.yaml,sim", *options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    compared = json.loads((own / "compared" / "compare.json").read_text())
    assert {system["title"] for system in compared["systems"]} == {"Trigger match", "SIM"}
    assert "brier" in compared["systems"][0]["summary"]
    config = (own / "compared" / "cells" / "own_system" / "seed101" / "config.yaml").read_text()
    assert "log_every_n_steps: 20" in config  # of conf/experiment/default.yaml, which is always read first
