"""The rehearsal of `measure` on a CPU: it counts the steps, with kept batches and with a reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gpu.measure import measure


@pytest.mark.parametrize("workers", [None, 2])
def test_it_measures_kept_batches_and_those_of_a_reader(workers: int | None, dataset: Path) -> None:
    found = measure(dataset, "cpu", 16, system="SIM", workers=workers)
    assert found["workers"] == workers
    assert 16 <= found["items_a_step"] <= 16 * 12
    assert found["items_per_second"] == pytest.approx(1e3 * found["items_a_step"] / found["milliseconds_a_step"])
