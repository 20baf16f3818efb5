"""What a measurement was made with: machine, versions, settings."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.pages import Shape
from lightning_ccn.provenance import git_state

if TYPE_CHECKING:
    from benchmarks.bench import Effort
    from benchmarks.entrants import Stage

PACKAGES = ("torch", "torchrec", "fbgemm-gpu-cpu", "fbgemm-gpu", "lightning", "pyarrow", "numpy")
PEERS = Path(__file__).with_name("peers.txt")


def about(stage: Stage, effort: Effort, shape: Shape) -> dict[str, Any]:
    """Machine, versions and settings, for the result's reader."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "git": git_state(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load": os.getloadavg()[0],
        "clock": stage.clock,
        "threads": stage.threads,
        "versions": versions(),
        "effort": asdict(effort),
        "shape": asdict(shape),
    }


def cpu_name() -> str:
    """The processor's name and its widest vector unit."""
    text = Path("/proc/cpuinfo").read_text()
    name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    unit = next((unit for unit in ("avx512f", "avx2") if f" {unit} " in text), "no AVX2")
    return f"{name.group(1) if name else platform.machine()} ({unit})"


def available_bytes() -> int:
    """Memory that programs can still get."""
    kib = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(kib.group(1)) * 2**10 if kib else 0


def versions() -> dict[str, str]:
    """Versions of Python, of our packages, and of the peers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found | dict(re.findall(r"^([\w-]+)==(\S+)$", PEERS.read_text(), re.MULTILINE))
