"""`slurm/job.sbatch` with fake SLURM commands: when it gives up a prediction, and when it does not."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STARTS = 6  # of ranks that die; the next start ends well
SRUN = f"""#!/usr/bin/env bash
[[ $* == *job_rank* ]] || exit 0  # the question whether the nodes answer
starts=$(cat starts_seen 2>/dev/null || echo 0)
echo $((starts + 1)) >starts_seen
((starts < {STARTS})) || exit 0
[[ ! $MAKES_PARTS ]] || touch "../.scores.part/part-$starts-0.parquet"
exit 137
"""


@pytest.mark.parametrize("makes_parts", [True, False])
def test_a_prediction_is_given_up_when_no_new_part_comes(makes_parts: bool, tmp_path: Path) -> None:
    job = tmp_path / "runs" / "run" / "jobs" / "7"
    shutil.copytree(ROOT / "slurm", job / "code" / "slurm")
    (job / "config.yaml").write_text(f"data: 1\noutput: {tmp_path}/scores\n")
    (job / "python").write_text("python3")
    for name in (".scores.part", "bin", "here"):
        (tmp_path / name).mkdir()
    for name, text in {"srun": SRUN, "scontrol": "#!/bin/sh\necho n1\n"}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    environment |= {"SLURM_JOB_NODELIST": "n1", "MAKES_PARTS": "yes" if makes_parts else ""}
    command = ["bash", str(ROOT / "slurm" / "job.sbatch"), "predict", str(tmp_path / "runs"), "run"]
    done = subprocess.run(command, env=environment, cwd=tmp_path / "here", capture_output=True, text=True)
    assert done.stdout.count("predict starts on n1") == (STARTS + 1 if makes_parts else 4), done.stdout + done.stderr
    assert done.returncode == (0 if makes_parts else 1)
    assert ("given up after 4 starts in a row without a new part" in done.stdout) != makes_parts
