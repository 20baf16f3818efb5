"""The user's own code that a run names travels with the job."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_ccn.cluster.own_code import own_code, strings_in, strings_in_words
from lightning_ccn.cluster.snapshot import snapshot


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a package, a module, and a folder without code."""
    desk = tmp_path / "desk"
    (desk / "own_package").mkdir(parents=True)
    (desk / "own_package" / "__init__.py").write_text("")
    (desk / "own_package" / "system.py").write_text("class OwnSystem:\n    version = 1\n")
    (desk / "own_module.py").write_text("class OwnCallback:\n    version = 1\n")
    (desk / "own_data").mkdir()
    (desk / "own.yaml").write_text("model: {system: own_package.system.OwnSystem}\n")
    monkeypatch.chdir(desk)
    monkeypatch.syspath_prepend(desk)
    for module in ("own_package", "own_package.system", "own_module"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return desk


def test_only_own_code_is_found(desk: Path) -> None:
    options = {
        "model": {"system": {"class_path": "own_package.system.OwnSystem", "init_args": {"path": "own_data.parquet"}}},
        "trainer": {
            "callbacks": [{"class_path": "own_module.OwnCallback"}],
            "strategy": {"class_path": "lightning_ccn.sharding.TorchRecStrategy"},
            "logger": [
                "lightning.pytorch.loggers.CSVLogger",
                "json.JSONDecoder",
                "own_module.Missing",
                "no_such.Thing",
            ],
        },
    }
    assert own_code(strings_in(options)) == [desk / "own_package", desk / "own_module.py"]


def test_a_command_line_names_own_code_in_words_and_in_yaml(desk: Path) -> None:
    words = ["--systems", "sim,own.yaml", "--trainer.callbacks=own_module.OwnCallback", "--model.lr", "0.1"]
    assert own_code(strings_in_words(words)) == [desk / "own_package", desk / "own_module.py"]
    inline = ["--config", "{model: {system: own_package.system.OwnSystem}}"]
    assert own_code(strings_in_words(inline)) == [desk / "own_package"]


def test_a_job_imports_the_copy_after_the_original_was_changed(desk: Path, tmp_path: Path) -> None:
    snapshot(tmp_path / "job", own_code(["own_package.system.OwnSystem", "own_module.OwnCallback"]))
    for file in (desk / "own_package" / "system.py", desk / "own_module.py"):
        file.write_text(file.read_text().replace("version = 1", "version = 2"))
    script = "import own_package.system as s, own_module as m; print(s.OwnSystem.version, m.OwnCallback.version)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "job" / "code"), "PYTHONSAFEPATH": "1"}  # as in slurm/
    done = subprocess.run([sys.executable, "-c", script], cwd=desk, env=environment, capture_output=True, text=True)
    assert done.stdout == "1 1\n", done.stderr
