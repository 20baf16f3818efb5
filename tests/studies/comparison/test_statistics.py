"""Means over seeds and paired differences, against arithmetic by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lightning_ccn.studies.comparison.statistics import paired, runs_to_see, summary


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


def test_the_error_over_pages_adds_to_that_over_runs_and_makes_the_interval_wider() -> None:
    values = {1: 0.72, 2: 0.60, 3: 0.83}, {1: 0.71, 2: 0.58, 3: 0.80}
    found = {name: value or 0 for name, value in paired(*values, np.array([0.03, -0.03, 0.0])).items()}
    assert found["page_se"] == pytest.approx(0.03 * math.sqrt(2))
    assert found["run_se"] == paired(*values)["se"]
    assert found["se"] == pytest.approx(math.hypot(found["run_se"], found["page_se"]))
    # 2 (e / e_runs)^4 degrees of freedom, as those of the pages are without error
    freedom = 2 * (found["se"] / found["run_se"]) ** 4
    assert found["p"] == pytest.approx(2 * stats.t.sf(0.02 / found["se"], freedom))
    assert found["high"] - 0.02 == pytest.approx(stats.t.ppf(0.975, freedom) * found["se"])


def test_so_many_seeds_find_a_difference_in_four_of_five_comparisons() -> None:
    runs = runs_to_see(0.001, run_sd=0.0012, page_se=0.0)
    more = runs_to_see(0.001, run_sd=0.0012, page_se=0.0002)
    assert runs is not None and more is not None and more > runs
    draws = np.random.default_rng(0).normal(0.001, 0.0012, (1500, runs))
    p = [paired(dict(enumerate(of)), dict.fromkeys(range(runs), 0.0))["p"] or 0 for of in draws]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.8, abs=0.03)
