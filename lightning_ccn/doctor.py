"""`ccn doctor`: explains what is wrong with an installation, and what to do about it.

`collect` looks at the machine, `diagnose` judges what was found, `main` prints the table. Only the standard
library is imported, so that `python -m lightning_ccn.doctor` works where torch cannot be imported.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import zip_longest
from pathlib import Path
from typing import Literal, NamedTuple

from lightning_ccn.loggers.wandb_key import has_key, server


class Release(NamedTuple):
    """Minor versions that are compiled for one another."""

    torchrec: str
    fbgemm: str
    torch: str


COMPATIBLE = (Release("1.9", "1.9", "2.14"), Release("1.8", "1.8", "2.13"), Release("1.6", "1.6", "2.11"))

# At least, below: the dependencies of pyproject.toml.
REQUIRED: Mapping[str, tuple[str, str | None]] = {
    "lightning": ("2.6", "2.7"),
    "torchmetrics": ("1.4", "2"),
    "pyarrow": ("17", None),
    "duckdb": ("1.4", "2"),
    "numpy": ("1.26", "3"),
    "jsonargparse": ("4.39", "5"),
    "PyYAML": ("6", "7"),
    "Jinja2": ("3.1", "4"),
    "rich": ("13", "16"),
    "wandb": ("0.31", "1"),
    "matplotlib": ("3.8", "4"),
    "scipy": ("1.11", "2"),
    "optuna": ("4", "6"),
    "onnx": ("1.17", None),
    "onnxscript": ("0.5", None),
    "onnxruntime": ("1.20", None),
    "starlette": ("0.46", "2"),
    "uvicorn": ("0.34", "1"),
    "prometheus-client": ("0.21", "1"),
    "tensordict": ("0.8", "1"),
    "tqdm": ("4.57", "5"),
    "pyre-extensions": ("0.0.30", None),
}
FBGEMM = ("fbgemm-gpu", "fbgemm-gpu-cpu")
REBUILD = "rm -r .venv && make install"
GIB = 2**30


@dataclass(frozen=True)
class Facts:
    """What `collect` found on the machine."""

    system: str  # operating system and processor: "Linux x86_64"
    python: str  # version, and the folder of the Python that runs this
    versions: Mapping[str, str]  # installed version of each distribution that matters
    failure: tuple[str, str] | None  # the first module that cannot be imported, and its error output
    torch_build: str | None  # cpu, or e.g. cuda 13.0; None if torch cannot be imported
    usable_gpus: int  # GPUs that torch can use
    gpus: tuple[str, ...]  # names of the GPUs that the driver knows
    cores: int  # CPU cores that this process may use
    memory: int  # bytes
    disk: int  # bytes free in the current folder
    shared: int | None  # bytes free in /dev/shm; None without that folder
    open_files: int  # soft limit; -1 without one
    slurm: bool  # whether there are sbatch and srun
    wandb_key: bool  # whether there is a key for Weights & Biases


Verdict = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """One row of the table."""

    check: str
    found: str
    verdict: Verdict = "ok"
    remedy: str = ""


def diagnose(facts: Facts) -> list[Finding]:
    """Judges the facts, and reads nothing else. A problem may be the cause of those after it."""
    return [
        *_platform(facts),
        *_trio(facts),
        *_flavour(facts),
        *_packages(facts),
        *_imports(facts),
        *_machine(facts),
    ]


def _judge(check: str, found: str, fine: bool, remedy: str, verdict: Verdict = "problem") -> Finding:
    return Finding(check, found) if fine else Finding(check, found, verdict, remedy)


def _platform(facts: Facts) -> Iterator[Finding]:
    supported = re.fullmatch("Linux (x86_64|aarch64)", facts.system) is not None
    yield _judge("system", facts.system, supported, "fbgemm has wheels for Linux on x86_64 and aarch64 only")
    supported = (3, 11) <= _numbers(facts.python)[:2] < (3, 14)
    remedy = f"needs 3.11, 3.12 or 3.13: {REBUILD} PYTHON=/path/to/python3.11"
    yield _judge("Python", facts.python, supported, remedy)


def _trio(facts: Facts) -> Iterator[Finding]:
    check = "torch, torchrec, fbgemm"
    fbgemm = [name for name in FBGEMM if name in facts.versions] or ["fbgemm-gpu-cpu"]
    names = ["torch", "torchrec", *fbgemm]
    found = ", ".join(f"{name} {facts.versions.get(name, 'missing')}" for name in names)
    if len(fbgemm) == 2:
        remedy = f"fbgemm's two flavours unpack into one folder and overwrite each other: {REBUILD}"
        yield Finding(check, found, "problem", remedy)
    elif not all(name in facts.versions for name in names):
        yield Finding(check, found, "problem", f"without all three nothing runs: {REBUILD}")
    else:
        torch, torchrec, fbgemm_version = (_minor(facts.versions[name]) for name in names)
        remedy = f"these were not compiled for one another; for versions that were: {REBUILD}"
        for release in COMPATIBLE:
            if release.torch == torch:
                pair = f"'torchrec=={release.torchrec}.*' '{fbgemm[0]}=={release.fbgemm}.*'"
                remedy += f"; or to keep torch {torch}: {sys.executable} -m pip install --no-deps {pair}"
        yield _judge(check, found, Release(torchrec, fbgemm_version, torch) in COMPATIBLE, remedy)


def _flavour(facts: Facts) -> Iterator[Finding]:
    fbgemm = [name for name in FBGEMM if name in facts.versions]
    if facts.torch_build is None or len(fbgemm) != 1:
        return  # `_trio` and `_imports` explain it
    cpu_torch, cpu_fbgemm = facts.torch_build == "cpu", fbgemm[0] == "fbgemm-gpu-cpu"
    gpus = f"{len(facts.gpus)} x {facts.gpus[0]}" if facts.gpus else "no GPU"
    verdict: Verdict = "problem"
    if facts.gpus and (cpu_torch or cpu_fbgemm):
        remedy = f"CPU wheels on a GPU machine leave the GPU idle: {REBUILD} FLAVOUR=cuda"
    elif cpu_torch and not cpu_fbgemm:
        remedy = f"fbgemm for CUDA needs torch for CUDA: {REBUILD} FLAVOUR=cpu"
    elif facts.gpus and not facts.usable_gpus:
        remedy = f"CUDA_VISIBLE_DEVICES hides the GPU, or its driver is too old for {facts.torch_build}"
    elif not cpu_fbgemm and not facts.gpus:
        verdict = "warning"
        remedy = f"right on a login node, whose jobs run elsewhere; to train here: {REBUILD} FLAVOUR=cpu"
    elif cpu_fbgemm and not cpu_torch:
        verdict = "ok"
        index = "INDEX=(the CPU wheel index named on PyTorch's install page)"
        remedy = f"works, but torch's CPU wheel is gigabytes smaller: {REBUILD} {index}"
    else:
        verdict, remedy = "ok", ""
    yield Finding("flavour", f"torch for {facts.torch_build}, {fbgemm[0]}, {gpus}", verdict, remedy)


def _packages(facts: Facts) -> Iterator[Finding]:
    if missing := [name for name in REQUIRED if name not in facts.versions]:
        yield Finding("packages", "missing: " + ", ".join(missing), "problem", REBUILD)
    for name, (at_least, below) in REQUIRED.items():
        if name in facts.versions:
            version = _numbers(facts.versions[name])
            fits = _numbers(at_least) <= version and (below is None or version < _numbers(below))
            wanted = f">= {at_least}" + (f" and < {below}" if below else "")
            yield _judge(name, facts.versions[name], fits, f"must be {wanted}: {REBUILD}")


NO_DRIVER = f"CUDA wheels need NVIDIA's driver: without it, submit jobs only, or {REBUILD} FLAVOUR=cpu"
# Part of a failed import's output -> its meaning and remedy. The first that matches counts.
MEANINGS = {
    "undefined symbol": f"compiled for another torch than the one installed: {REBUILD}",
    "jagged_2d_to_dense": f"fbgemm's library did not load, or is of another release: {REBUILD}",
    "libtorch_cuda.so": f"fbgemm for CUDA, but torch for the CPU: {REBUILD} FLAVOUR=cpu",
    "libnvidia-ml.so": NO_DRIVER,
    "libcuda.so": NO_DRIVER,
    "GLIBC": "the wheels need a newer Linux: glibc 2.28 or later",
    "No module named": f"a package is missing or was half removed: {REBUILD}",
    "killed by": f"crashes while it loads, mostly because it was compiled for another torch: {REBUILD}",
}


def _imports(facts: Facts) -> Iterator[Finding]:
    if facts.failure is None:
        yield Finding("imports", ", ".join(PROBED))
        return
    module, printed = facts.failure
    lines = [line.strip() for line in printed.splitlines() if line.strip()] or ["failed without a message"]
    known = [(line, meaning) for sign, meaning in MEANINGS.items() for line in lines if sign in line]
    line, remedy = known[0] if known else (lines[-1], f"damaged: {REBUILD}")
    yield Finding(f"import {module}", textwrap.shorten(line, 160), "problem", remedy)


def _machine(facts: Facts) -> Iterator[Finding]:
    yield Finding("cores", str(facts.cores))
    yield _room("memory", facts.memory, 4 * GIB, "tables live in memory: train with fewer or smaller ones")
    yield _room("free disk here", facts.disk, 5 * GIB, "data, checkpoints and runs are written here")
    if facts.shared is not None:
        remedy = "data workers pass batches through it: use fewer, or in Docker give --shm-size=8g"
        yield _room("free /dev/shm", facts.shared, GIB, remedy)
    remedy = "data workers pass batches as open files: ulimit -n 65536"
    enough = facts.open_files >= 1024 or facts.open_files == -1
    yield _judge("open files", str(facts.open_files), enough, remedy, "warning")
    yield Finding("SLURM", "sbatch and srun" if facts.slurm else "none: one machine, or torchrun on several")
    yield Finding("W&B", "key found" if facts.wandb_key else "no key: runs are logged offline")


def _room(check: str, found: int, enough: int, remedy: str) -> Finding:
    return _judge(check, f"{found / GIB:.1f} GiB", found >= enough, remedy, "warning")


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: 2.13.0+cpu is (2, 13, 0)."""
    leading = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(number) for number in leading[0].split(".")) if leading else ()


def _minor(version: str) -> str:
    return ".".join(str(number) for number in _numbers(version)[:2])


PROBED = ("torch", "fbgemm_gpu", "torchrec", "lightning", "pyarrow")
# Runs in a process of its own, which a library of the wrong release may kill. If fbgemm's library did not load,
# torchrec can still be imported, and fails at the first kernel: so one is run.
_PROBE = f"""
import importlib
for module in {PROBED}:
    print("import", module, flush=True)
    loaded = importlib.import_module(module)
    if module == "torch":
        torch = loaded
        print("gpus", torch.cuda.device_count())
        print("build", f"cuda {{torch.version.cuda}}" if torch.version.cuda else "cpu")
print("import fbgemm_gpu", flush=True)
torch.ops.fbgemm.jagged_2d_to_dense(torch.ones(1, 1), torch.tensor([0, 1]), 1)
"""


def collect() -> Facts:
    """Examines the running Python and the machine."""
    failure, torch_build, usable_gpus = _probe()
    affinity = getattr(os, "sched_getaffinity", None)  # under SLURM fewer than the machine has; Linux only
    shared = Path("/dev/shm")
    return Facts(
        system=f"{platform.system()} {platform.machine()}",
        python=f"{platform.python_version()} in {sys.prefix}",
        versions=_versions(),
        failure=failure,
        torch_build=torch_build,
        usable_gpus=usable_gpus,
        gpus=_gpus(),
        cores=len(affinity(0)) if affinity else os.cpu_count() or 1,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        disk=shutil.disk_usage(".").free,
        shared=shutil.disk_usage(shared).free if shared.is_dir() else None,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        slurm=bool(shutil.which("sbatch") and shutil.which("srun")),
        wandb_key=has_key(server()),
    )


def _versions() -> dict[str, str]:
    versions = {}
    for name in ("torch", "torchrec", *FBGEMM, *REQUIRED):
        try:
            # An interrupted pip leaves distributions without a version.
            versions[name] = metadata.version(name) or "0 (damaged)"
        except metadata.PackageNotFoundError:
            continue
    return versions


def _probe() -> tuple[tuple[str, str] | None, str | None, int]:
    child = subprocess.run([sys.executable, "-W", "ignore", "-c", _PROBE], capture_output=True, text=True)
    told = dict(line.split(" ", 1) for line in child.stdout.splitlines() if " " in line)  # the last of each counts
    printed = child.stderr
    if child.returncode < 0:
        printed += f"\nkilled by {signal.Signals(-child.returncode).name}"
    failure = (told["import"], printed) if child.returncode else None
    return failure, told.get("build"), int(told.get("gpus", 0))


def _gpus() -> tuple[str, ...]:
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(answer.stdout.splitlines())


def table(findings: Sequence[Finding], width: int) -> str:
    """The findings in four columns; the second and the last wrap to fit `width` characters."""
    rows = [("check", "found", "verdict", "remedy"), *findings]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    widths[1] = min(widths[1], 40)
    widths[3] = max(30, width - sum(widths[:3]) - 6)
    lines = []
    for row in rows:
        cells = [textwrap.wrap(cell, width, break_on_hyphens=False) for cell, width in zip(row, widths, strict=True)]
        for line in zip_longest(*cells, fillvalue=""):
            lines.append("  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit code, 1 with any problem.

    Args:
        args: Arguments of the command; the only option is --help.
    """
    parser = argparse.ArgumentParser(prog="ccn doctor", description="Check this installation, and explain what to do.")
    parser.parse_args(args)
    findings = diagnose(collect())
    print(table(findings, shutil.get_terminal_size((120, 24)).columns))
    problems = sum(finding.verdict == "problem" for finding in findings)
    print(f"\nproblems: {problems}" + (", the remedies are on the right" if problems else ""))
    return int(problems > 0)


if __name__ == "__main__":
    sys.exit(main())
