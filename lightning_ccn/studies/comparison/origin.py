"""What produced a study's results: the command, the versions of the packages, and the git commit."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from lightning_ccn import __version__
from lightning_ccn.provenance import git_state


def origin(command: str, args: Sequence[str]) -> dict[str, Any]:
    """`command`, `versions` and `git`, for the JSON file that a study writes.

    Args:
        command: Name of the `ccn` command, such as `compare`.
        args: Its arguments.
    """
    return {
        "command": shlex.join(["ccn", command, *args]),
        "versions": {
            "lightning_ccn": __version__,
            **{name: version(name) for name in ("torch", "torchrec", "lightning")},
        },
        "git": git_state(),
    }
