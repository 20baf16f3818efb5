"""The benchmark of what Lightning adds to a step."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from benchmarks.entrants import Stage
from benchmarks.framework import measure, middle
from tests.processes import clean_environment


def test_a_cell_has_the_median_and_the_quartiles() -> None:
    assert middle([4.0, 1.0, 2.0, 3.0, 100.0]) == "3.0 (2.0 to 4.0)"


@pytest.mark.slow
def test_fit_and_a_bare_loop_take_turns_on_the_same_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {*os.environ} - {*clean_environment()}:  # of ranks that ran in this process
        monkeypatch.delenv(name)
    rows = measure(Stage(tmp_path, "cpu", 1, None), times=1, count=2)
    assert [row[:2] for row in rows] == [["SIM", "1,020"], ["CCN", "1,020"]]
    for _, _, bare, *cells in rows:
        assert float(bare) > 0
        for cell in cells:
            median, low, high = (float(number) for number in re.findall(r"-?[\d.]+", cell))
            assert low <= median <= high
