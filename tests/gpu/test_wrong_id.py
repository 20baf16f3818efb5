"""A run with an id that is not in its table ends with a clear error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import clean_environment
from tests.sharding.dlrm import ITEMS

SAID = {"cpu": "feature 'target' has the id {}", "gpu": "the GPU reports a fault, of this or an earlier operation:"}


def fit_with_id(accelerator: str, wrong: int, folder: Path) -> subprocess.CompletedProcess[str]:
    """A run in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.gpu.wrong_id", accelerator, str(wrong), str(folder)]
    environment = clean_environment(PYTHONPATH=os.pathsep.join(sys.path))
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("wrong", [ITEMS, -1])
def test_an_id_that_is_not_in_its_table_ends_a_run_in_words(accelerator: str, wrong: int, tmp_path: Path) -> None:
    done = fit_with_id(accelerator, wrong, tmp_path)
    assert done.returncode != 0
    assert f"ccn: error: {SAID[accelerator].format(wrong)}" in done.stderr, done.stderr


def test_an_id_of_the_table_does_not(accelerator: str, tmp_path: Path) -> None:
    done = fit_with_id(accelerator, ITEMS - 1, tmp_path)
    assert done.returncode == 0, done.stderr
