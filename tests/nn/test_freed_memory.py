"""A process that keeps the memory of freed tensors."""

from __future__ import annotations

import subprocess
import sys

import pytest

TENSORS = """
import resource, sys
import torch
from lightning_ccn.nn.freed_memory import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("no glibc")
torch.set_num_threads(1)
for _ in range(5):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_fetched(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", TENSORS, mode], capture_output=True, text=True, check=False)
    if "no glibc" in done.stderr:
        pytest.skip("only glibc can be told to keep memory")
    return int(done.stdout)


def test_the_next_tensors_get_most_of_the_pages_of_the_last_ones() -> None:
    assert pages_fetched("keep") < 0.6 * pages_fetched("return")
