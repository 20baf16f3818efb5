"""The git commit and the SLURM job of a run."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

GIT_FILE = "git.json"


def git_state(folder: Path = Path(__file__).parent) -> dict[str, str | bool]:
    """The git state of the code; empty if it is in no checkout.

    A job's copy of the code is in no repository, or in that of another project. It comes with a file `git.json` beside
    the package, which holds this function's result for the original.

    Args:
        folder: Folder of the package; tests name another.

    Returns:
        `commit`, `branch`, and `changed`: whether a tracked file differs from the commit.
    """
    snapshot = folder.parent / GIT_FILE
    if snapshot.exists():
        state: dict[str, str | bool] = json.loads(snapshot.read_text())
        return state

    def git(*args: str) -> str:
        command = ["git", "-C", str(folder), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", ".")  # a virtual environment may be inside another project's checkout
        return {
            "commit": git("rev-parse", "HEAD"),
            "branch": git("rev-parse", "--abbrev-ref", "HEAD"),
            "changed": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return {}


def slurm_state() -> dict[str, str]:
    """SLURM's variables about this job; empty outside of a job."""
    names = "JOB_ID ARRAY_JOB_ID ARRAY_TASK_ID RESTART_COUNT JOB_NAME JOB_PARTITION JOB_NUM_NODES JOB_NODELIST"
    return {name.lower(): os.environ[f"SLURM_{name}"] for name in names.split() if f"SLURM_{name}" in os.environ}
