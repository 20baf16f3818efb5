"""For tests that start a process of their own."""

from __future__ import annotations

import os

# Variables of this process, or of a run in it: a new process would take itself for a rank of that run.
OF_A_RUN = ("CCN_", "WANDB_", "MASTER_", "RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "PYTHONWARNINGS")


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without what belongs to a run, and with `more`."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OF_A_RUN)} | more
