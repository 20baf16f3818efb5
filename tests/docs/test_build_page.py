"""`Bring your own log`, followed as it is written, on a log of the size of a test."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_ccn.cli import main
from tests.docs.test_commands_run import expanded
from tests.processes import clean_environment

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "build.md").read_text()
SCRIPT = ROOT / "examples" / "raw_log" / "make_log.py"
SHORT = ["--trainer.max_steps", "4", "--trainer.val_check_interval", "1.0", "--data.workers", "0", "--wandb", "off"]


def test_the_page_shows_the_specification_of_the_example() -> None:
    [shown] = re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert shown == (ROOT / "examples" / "raw_log" / "log.yaml").read_text()


def test_the_script_that_makes_the_log_has_thirty_lines() -> None:
    lines = [
        line for line in SCRIPT.read_text().splitlines() if line and not line.startswith(('"""', "import", "from"))
    ]
    assert len(lines) <= 30


def test_the_four_commands_lead_from_a_raw_log_to_a_tested_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    block = re.findall(r"^```bash\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)[0]
    lines = block.splitlines()
    assert len(lines) == 4
    for line in lines:
        words = shlex.split(line)
        if words[0] in ("python", "cp"):
            words = [sys.executable, *words[1:], "4000"] if words[0] == "python" else words
            subprocess.run(words, check=True, env=clean_environment(OMP_NUM_THREADS="1"))
            continue
        for command in expanded(line, tmp_path / "venv") if words[0] == "make" else [words[1:]]:
            assert main([*command, *(SHORT if command[0] == "fit" else [])]) == 0
    [metrics] = tmp_path.glob("runs/*/*/metrics.json")
    assert 0 < json.loads(metrics.read_text())["auc"] < 1
