"""What a rank of a job does when it ends."""

from __future__ import annotations

import subprocess
import sys

STOPS_IN_THE_MIDDLE = """
from torch.utils.data import DataLoader

from lightning_ccn.job_rank import end_workers
from lightning_ccn.signals import listen

listen()
batches = iter(DataLoader(range(1000), num_workers=1))
next(batches)
{end}
"""


def test_a_rank_that_stops_in_the_middle_of_an_epoch_ends_although_its_workers_do_not_hear_sigterm() -> None:
    program = [sys.executable, "-c", STOPS_IN_THE_MIDDLE.format(end="end_workers()")]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert not ended.stderr
