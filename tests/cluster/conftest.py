"""The cluster of this folder's tests, started once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.slurm_cluster import Cluster


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
def desk(tmp_path: Path) -> Path:
    """What one test does to its runs; theirs are beside it."""
    return tmp_path / "desk"
