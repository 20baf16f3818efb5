"""The paper's tables on one machine, with `make test ARGS="-m large"`.

Needs 24 GiB of memory, 20 GB of disk and five minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightning_ccn.cli import main
from lightning_ccn.sharding import newest_whole
from lightning_ccn.sharding.plan import GIB

CONF = Path(__file__).parents[2] / "conf" / "experiment" / "paper_scale.yaml"
USERS, ITEMS = 61_585_143, 19_061_870
PAGES = ["--train_pages", "4000", "--validation_pages", "500", "--test_pages", "500"]


def with_descendants(process: int) -> list[int]:
    """Ids of a process and its descendants."""
    found = [process]
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        for child in children.read_text().split():
            found += with_descendants(int(child))
    return found


def memory(process: int) -> int:
    """Memory of a process and its descendants in bytes; shared pages count once."""
    total = 0
    for member in with_descendants(process):
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        except OSError:  # the process has ended
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def fit(folder: Path, runs: Path, *options: str) -> int:
    """Runs `ccn fit`; returns its peak memory in bytes."""
    place = ["--data.folder", str(folder), "--runs", str(runs), "--run_id", "r"]
    command = [sys.executable, "-W", "ignore", "-m", "lightning_ccn.cli", "fit", "--config", str(CONF), *place]
    own = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "CCN_RUN_ID")
    environment = {k: v for k, v in os.environ.items() if k not in own} | {"PYTHONPATH": os.pathsep.join(sys.path)}
    peak = 0
    with subprocess.Popen([*command, "--test_after_fit", "false", *options], env=environment) as process:
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            time.sleep(0.2)
    assert process.returncode == 0
    return peak


@pytest.mark.large
def test_the_papers_tables_train_save_and_resume_within_the_expected_memory(tmp_path: Path) -> None:
    world, runs = tmp_path / "world", tmp_path / "runs"
    assert main(["data", "world", str(world), "--users", str(USERS), "--items", str(ITEMS), *PAGES]) == 0
    one = fit(world, runs)
    checkpoint = newest_whole(runs / "paper_scale" / "r" / "checkpoints")
    assert checkpoint is not None
    two = fit(world, runs, "--trainer.devices", "2", "--ckpt_path", "last", "--trainer.max_epochs", "2")
    run = runs / "paper_scale" / "r"
    assert json.loads((run / "metrics.json").read_text())["global_step"] == 64  # 32 on one rank, 32 on two
    tables = (USERS + ITEMS) * (16 * 4 + 4)  # weights, and row-wise AdaGrad's one number per row
    a_process = 1.5 * GIB  # half of it after the imports; the rest are buffers of steps, of loading and of saving
    assert one < 1.1 * tables + a_process
    assert two < 1.1 * tables + 2 * a_process
