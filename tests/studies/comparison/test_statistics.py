"""Means over seeds and paired differences, against arithmetic by hand."""

from __future__ import annotations

import math

import pytest

from lightning_ccn.studies.comparison.statistics import paired, summary


def test_the_mean_of_five_runs_leaves_out_the_best_and_the_worst() -> None:
    found = summary([0.70, 0.90, 0.71, 0.10, 0.72])
    assert found["mean"] == pytest.approx((0.70 + 0.71 + 0.72) / 3)
    assert found["runs"] == 3


def test_the_standard_error_of_a_trimmed_mean_comes_from_the_winsorised_runs() -> None:
    found = summary([1.0, 2.0, 4.0, 7.0, 50.0])
    winsorised = [2.0, 2.0, 4.0, 7.0, 7.0]
    mean = sum(winsorised) / 5
    deviation = math.sqrt(sum((value - mean) ** 2 for value in winsorised) / 4)
    assert found["se"] == pytest.approx(deviation / (0.6 * math.sqrt(5)))


def test_the_mean_of_fewer_than_five_runs_includes_all() -> None:
    found = summary([1.0, 2.0, 6.0])
    assert found["mean"] == pytest.approx(3.0) and found["runs"] == 3
    assert found["se"] == pytest.approx(math.sqrt(7.0) / math.sqrt(3))


def test_a_single_run_has_no_standard_error_and_an_undefined_value_no_mean() -> None:
    assert summary([0.7]) == {"mean": 0.7, "se": None, "runs": 1}
    assert summary([0.7, None]) == {"mean": None, "se": None, "runs": 0}


def test_a_difference_is_paired_by_seed_and_leaves_out_none() -> None:
    found = paired({1: 0.72, 2: 0.60, 3: 0.83, 9: 0.1}, {3: 0.80, 2: 0.58, 1: 0.71, 8: 0.9})
    assert found["pairs"] == 3
    assert found["difference"] == pytest.approx(0.02)
    assert found["se"] == pytest.approx(0.01 / math.sqrt(3))
    # t = 0.02 / (0.01 / sqrt 3) = 2 sqrt 3 with 2 degrees of freedom: p = 1 - t / sqrt(t^2 + 2)
    t = 2 * math.sqrt(3)
    assert found["p"] == pytest.approx(1 - t / math.sqrt(t**2 + 2))


def test_equal_differences_and_single_pairs_have_no_p() -> None:
    assert paired({1: 0.5, 2: 0.5}, {1: 0.25, 2: 0.25})["p"] is None
    assert paired({1: 0.5}, {1: 0.25})["se"] is None
