"""`slurm/job.sbatch` with fake SLURM commands: when it gives up a prediction, and what it says of NCCL's errors."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STARTS = 6  # of ranks that die; the next start ends well
# srun starts ranks that die, and make what a test wants. Without them it is the question whether the nodes answer.
SRUN = f"""#!/usr/bin/env bash
[[ $* == *job_rank* ]] || exit 0
starts=$(cat starts_seen 2>/dev/null || echo 0)
echo $((starts + 1)) >starts_seen
((starts < {STARTS})) || exit 0
[[ ! $MAKES_PARTS ]] || touch "../.scores.part/part-$starts-0.parquet"
[[ ! $DUMPS ]] || ((starts)) || touch "${{TORCH_FR_DUMP_TEMP_FILE}}1"
env | grep ^TORCH_ >environment
exit 137
"""


def run_job(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the job 7, a prediction, in `folder`; its fake srun runs in `here`."""
    job = folder / "runs" / "run" / "jobs" / "7"
    shutil.copytree(ROOT / "slurm", job / "code" / "slurm")
    (job / "config.yaml").write_text(f"data: 1\noutput: {folder}/scores\n")
    (job / "python").write_text("python3")
    for name in (".scores.part", "bin", "here"):
        (folder / name).mkdir()
    for name, text in {"srun": SRUN, "scontrol": "#!/bin/sh\necho n1\n"}.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("TORCH_")}
    path = f"{folder}/bin:{os.environ['PATH']}"
    plain |= {"PATH": path, "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1", "MAKES_PARTS": "", "DUMPS": ""}
    command = ["bash", str(ROOT / "slurm" / "job.sbatch"), "predict", str(folder / "runs"), "run"]
    return subprocess.run(command, env=plain | environment, cwd=folder / "here", capture_output=True, text=True)


@pytest.mark.parametrize("makes_parts", [True, False])
def test_a_prediction_is_given_up_when_no_new_part_comes(makes_parts: bool, tmp_path: Path) -> None:
    done = run_job(tmp_path, MAKES_PARTS="yes" if makes_parts else "")
    assert done.stdout.count("predict starts on n1") == (STARTS + 1 if makes_parts else 4), done.stdout + done.stderr
    assert done.returncode == (0 if makes_parts else 1)
    assert ("given up after 4 starts in a row without a new part" in done.stdout) != makes_parts


def test_the_ranks_get_a_flight_recorder_and_the_log_names_its_files(tmp_path: Path) -> None:
    done = run_job(tmp_path, DUMPS="yes")
    files = tmp_path / "runs" / "run" / "jobs" / "7" / "nccl-rank-"
    assert set((tmp_path / "here" / "environment").read_text().splitlines()) == {
        "TORCH_FR_BUFFER_SIZE=2000",
        "TORCH_NCCL_DUMP_ON_TIMEOUT=1",
        f"TORCH_FR_DUMP_TEMP_FILE={files}",
    }
    failed = [line.partition("failed: ")[2] for line in done.stdout.splitlines() if "failed: " in line]
    first, *others = failed
    assert first == f"srun ended with 137; NCCL's flight recorder: {files}*"
    assert others == ["srun ended with 137"] * 3  # the file is of an earlier start


def test_a_flight_recorder_of_the_users_size_is_kept(tmp_path: Path) -> None:
    run_job(tmp_path, TORCH_FR_BUFFER_SIZE="50")
    assert "TORCH_FR_BUFFER_SIZE=50\n" in (tmp_path / "here" / "environment").read_text()
