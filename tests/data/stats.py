"""What a test does to a folder's stats.json after it has changed a file on purpose."""

from __future__ import annotations

import json
from pathlib import Path

from lightning_ccn.data.dataset import SPLITS
from lightning_ccn.data.fingerprint import file_digests


def accept_changes(folder: Path) -> None:
    """Writes the digests of the files as they are now, so that a reader gets as far as the change itself."""
    path = folder / "stats.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": file_digests(folder, SPLITS)}))
