"""Which code and which job a run is of."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def git_state(folder: Path) -> dict[str, str | bool]:
    """Commit, branch, and whether a tracked file differs from the commit; empty outside of a checkout."""

    def git(*args: str) -> str:
        command = ["git", "-C", str(folder), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "branch": git("rev-parse", "--abbrev-ref", "HEAD"),
            "changed": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return {}


def slurm_state() -> dict[str, str]:
    """SLURM's ids of this job; empty outside of one."""
    names = "JOB_ID ARRAY_JOB_ID ARRAY_TASK_ID RESTART_COUNT JOB_NAME JOB_PARTITION JOB_NUM_NODES JOB_NODELIST"
    return {name.lower(): os.environ[f"SLURM_{name}"] for name in names.split() if f"SLURM_{name}" in os.environ}
