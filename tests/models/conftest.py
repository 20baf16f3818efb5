"""Fixtures of the systems' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.reader import PageBatches


@pytest.fixture(scope="session")
def reader(dataset: Path) -> PageBatches:
    """The test split of the session's dataset, one batch of 24 pages."""
    return PageBatches(Dataset.open(dataset), "test", batch_pages=24, short_length=5, long_length=4, with_gaps=True)
