"""The code as it was when a job was submitted: an edit of the checkout changes no job that waits or is requeued."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import lightning_ccn
from lightning_ccn.provenance import GIT_FILE, git_state

ROOT = Path(lightning_ccn.__file__).parents[1]


def snapshot(folder: Path) -> None:
    """Makes a job's folder: `python`, the interpreter's path, and `code/`, which says of which commit it is."""
    code = folder / "code"
    for name in ("lightning_ccn", "slurm", "conf"):
        shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    (code / GIT_FILE).write_text(json.dumps(git_state(), indent=1) + "\n")
    changes = subprocess.run(["git", "-C", str(ROOT), "diff", "HEAD"], capture_output=True)
    (code / "changes.diff").write_bytes(changes.stdout)
    (folder / "python").write_text(sys.executable + "\n")
