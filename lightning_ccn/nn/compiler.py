"""What torch.compile needs of a machine."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec


def missing_for_compile(device_type: str) -> str | None:
    """What this machine lacks to compile for a device; None if nothing. torch says so only within the first step.

    Args:
        device_type: `cpu` or `cuda`.
    """
    variable, names = ("CC", ("gcc", "clang", "cc")) if device_type == "cuda" else ("CXX", ("g++", "clang++", "c++"))
    wanted = [os.environ[variable]] if variable in os.environ else names
    if not any(shutil.which(name) for name in wanted):
        return f"a compiler ({' or '.join(wanted)} is not on the PATH, and {variable} names no other)"
    if device_type == "cuda" and find_spec("triton") is None:
        return "triton, which comes with torch for CUDA"
    return None
