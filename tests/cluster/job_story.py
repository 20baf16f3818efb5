"""What became of a run that was disturbed, for docs/slurm.md."""

from __future__ import annotations

import re
import time

from tests.cluster.slurm_cluster import Run

SAVED, TRAINING = "saved after step", "training from step"


def timeline(run: Run) -> list[str]:
    """What was done to the run, and what its batch script and rank 0 said, in the order of time, seconds exact.

    Of the saves of one start the last is kept.
    """
    files = (run.desk / "notes.log", run.job / "job.log", run.job / "rank-0.log")
    lines = [line for path in files for line in path.read_text().splitlines() if re.match(r"20\d\d-", line)]
    lines.sort(key=lambda line: line[:19])  # stable: in one second the cause goes first
    return [
        line
        for i, line in enumerate(lines)
        if SAVED not in line or SAVED not in next((s for s in lines[i + 1 :] if SAVED in s or TRAINING in s), "")
    ]


def table(lines: list[str]) -> str:
    """Of everything that was done: seconds until the checkpoint, if it led to one, and until the run trained again."""
    rows = ["| what happened | to the checkpoint | to the next start | to training again |", "|---|---|---|---|"]
    for i, line in enumerate(lines):
        if ">>>" not in line:
            continue
        after = lines[i + 1 :]
        start = next(j for j, s in enumerate(after) if "fit starts on" in s)
        saved = next((s for s in after[:start] if SAVED in s), None)
        training = next(s for s in after[start:] if TRAINING in s)
        cells = [
            f"{_seconds(s) - _seconds(line)} s" if s else "goes back to the last"
            for s in (saved, after[start], training)
        ]
        rows.append(f"| {line.partition('>>> ')[2]} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _seconds(line: str) -> int:
    return int(time.mktime(time.strptime(line[:19], "%Y-%m-%d %H:%M:%S")))
