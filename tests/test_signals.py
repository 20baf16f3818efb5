"""The signals that SLURM sends set a flag; they end neither the process nor what it has started."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, subprocess, sys, time
from lightning_ccn.signals import asked_to_stop, listen

listen()
child = subprocess.Popen([sys.executable, "-c", "print('started', flush=True); input(); print('lives')"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
assert child.stdout.readline() == "started\\n"
assert not asked_to_stop()
for pid in (child.pid, os.getpid()):
    os.kill(pid, signal.SIGNAL)
deadline = time.monotonic() + 20
while not asked_to_stop() and time.monotonic() < deadline:
    time.sleep(0.01)
assert asked_to_stop()
print(child.communicate("\\n")[0].strip())
"""


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM"])
def test_a_signal_sets_the_flag_and_ends_neither_the_process_nor_its_children(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT.replace("SIGNAL", name)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "lives\n"), done.stderr
