"""The cluster of this folder's tests, started once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three idle nodes."""
    if os.geteuid() != 0:
        pytest.skip("starting a SLURM needs root")
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        started = cluster.do("start", "3")
        if started.returncode == 3:
            pytest.skip(started.stderr.strip())  # the packages cannot be had
        assert started.returncode == 0, started.stderr
        yield cluster
    finally:
        cluster.do("stop")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder for the runs of one test; what holds them goes with the test."""
    return tmp_path / "runs"
