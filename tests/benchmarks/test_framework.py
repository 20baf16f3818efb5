"""The benchmark of what Lightning adds to a step."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.entrants import Stage
from benchmarks.framework import measure, middle


def test_a_cell_has_the_median_and_the_quartiles() -> None:
    assert middle([4.0, 1.0, 2.0, 3.0, 100.0]) == "3.0 (2.0 to 4.0)"


@pytest.mark.slow
def test_fit_and_a_bare_loop_take_turns_on_the_same_batches(tmp_path: Path) -> None:
    rows = measure(Stage(tmp_path, "cpu", 1, None), times=1, count=2)
    assert [row[:2] for row in rows] == [["SIM", "1,020"], ["CCN", "1,020"]]
    for _, _, bare, *cells in rows:
        assert float(bare) > 0
        for cell in cells:
            low, high = re.fullmatch(r"-?[\d.]+ \((-?[\d.]+) to (-?[\d.]+)\)", cell).groups()  # type: ignore[union-attr]
            assert float(low) <= float(high)
