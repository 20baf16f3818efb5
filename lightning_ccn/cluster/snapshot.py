"""A copy of the code for each job, so that a later edit of the checkout changes no job that waits or is requeued."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import lightning_ccn
from lightning_ccn.cluster.own_code import copy_code
from lightning_ccn.provenance import GIT_FILE, git_state

ROOT = Path(lightning_ccn.__file__).parents[1]


def snapshot(folder: Path, own_code: Iterable[Path] = ()) -> None:
    """Makes a job's folder.

    It gets `python`, the interpreter's path, and `code/`: the package with conf/ and slurm/, the user's own code, the
    git commit, and the changes since that commit.

    Args:
        folder: Folder of the job.
        own_code: The user's own modules and packages, which the job imports from the copy.
    """
    code = folder / "code"
    for name in ("lightning_ccn", "slurm", "conf"):
        shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    copy_code(own_code, code)
    (code / GIT_FILE).write_text(json.dumps(git_state(), indent=1) + "\n")
    changes = subprocess.run(["git", "-C", str(ROOT), "diff", "HEAD"], capture_output=True)
    (code / "changes.diff").write_bytes(changes.stdout)
    (folder / "python").write_text(sys.executable + "\n")
