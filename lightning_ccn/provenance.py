"""Which code and which job a run is of."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

GIT_FILE = "git.json"


def git_state(folder: Path = Path(__file__).parent) -> dict[str, str | bool]:
    """`commit`, `branch`, and `changed`: whether a tracked file differs from the commit. Empty outside of a checkout.

    A snapshot of the code has no repository, or lies in one of something else: who makes it leaves what this function
    says of the original in `git.json`, beside the package.

    Args:
        folder: of the package; another one in tests.
    """
    snapshot = folder.parent / GIT_FILE
    if snapshot.exists():
        state: dict[str, str | bool] = json.loads(snapshot.read_text())
        return state

    def git(*args: str) -> str:
        command = ["git", "-C", str(folder), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", ".")  # a virtual environment may lie in a checkout of something else
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
