"""What a dataset folder was built from, so that a second build of the same has nothing to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_ccn.data.build.log_files import LogFiles
from lightning_ccn.data.build.spec import LogSpec
from lightning_ccn.data.dataset import SPLITS, Dataset
from lightning_ccn.data.places import Place
from lightning_ccn.errors import DataError

STAMP = "build.json"  # the file in the dataset folder


def stamp(spec: LogSpec, files: Sequence[LogFiles], older: Dataset | None) -> dict[str, Any]:
    """The digest of a specification, the size and the time of each file, and what is extended."""
    plain = json.dumps(asdict(spec), sort_keys=True)
    return {
        "specification": hashlib.sha256(plain.encode()).hexdigest()[:16],
        "files": {
            str(path.resolve()): [path.stat().st_size, path.stat().st_mtime_ns] for each in files for path in each.paths
        },
        "extends": older.digests if older else None,
    }


def to_json(plain: Mapping[str, Any]) -> str:
    """The contents of the file."""
    return json.dumps(plain, indent=2) + "\n"


def is_checked(folder: Path) -> bool:
    """Whether the folder that a build has written was checked too, and found to be right."""
    return bool(json.loads((folder / STAMP).read_text()).get("checked"))


def note_checked(folder: Path) -> None:
    """Notes that the folder was checked, so that a build that was interrupted before it is checked the next time."""
    path = folder / STAMP
    part = path.with_name(f".{STAMP}")
    part.write_text(to_json({**json.loads(path.read_text()), "checked": True}))
    part.replace(path)


def is_built(folder: Place, now: Mapping[str, Any]) -> bool:
    """Whether a folder was built from the same, and is as it was then.

    Raises:
        DataError: The folder was built from something else, or has changed.
    """
    path = folder / STAMP
    if not path.is_file():
        return False  # `NewFolder` says what is wrong with a folder that is not empty
    try:
        then = json.loads(path.read_text())
        before = {str(name): value for name, value in then["files"].items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: cannot be read: {error}; remove {folder}, or name another folder") from None
    changed = sorted(n for n in before.keys() | now["files"].keys() if before.get(n) != now["files"].get(n))
    why = ""
    if then.get("specification") != now["specification"]:
        why = "from another specification"
    elif changed:
        why = f"when other files were there ({len(changed):,} have changed, such as {changed[0]})"
    elif then.get("extends") != now["extends"]:
        why = "with another --extends"
    if why:
        raise DataError(f"{folder}: was built {why}; name another folder, or remove it")
    dataset = Dataset.open(folder)
    for split in SPLITS:
        dataset.fingerprint(split)  # refuses changes
    return True
