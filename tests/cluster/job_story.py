"""The timeline of a disturbed run, from its logs, as docs/slurm.md shows it."""

from __future__ import annotations

import re
import time

from tests.cluster.slurm_cluster import Run

SAVED, TRAINING = "saved after step", "training from step"


def timeline(run: Run) -> list[str]:
    """What the test did to the run, and the log lines of its batch script and rank 0, in the order of time.

    Of several saves between two starts only the last is kept.
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
    """A Markdown table: for each disturbance the seconds until its checkpoint, the next start, and training again."""
    rows = ["| what happened | to the checkpoint | to the next start | to training again |", "|---|---|---|---|"]
    for i, line in enumerate(lines):
        if ">>>" not in line:
            continue
        after = lines[i + 1 :]
        start = next(j for j, s in enumerate(after) if "fit starts on" in s)
        saved = next((s for s in after[:start] if SAVED in s), None)
        training = next(s for s in after[start:] if TRAINING in s)
        cells = [
            f"{_seconds(s) - _seconds(line)} s" if s else "none; continues from the last"
            for s in (saved, after[start], training)
        ]
        rows.append(f"| {line.partition('>>> ')[2]} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _seconds(line: str) -> int:
    return int(time.mktime(time.strptime(line[:19], "%Y-%m-%d %H:%M:%S")))
