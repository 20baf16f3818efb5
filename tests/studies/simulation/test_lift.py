"""Lifts and their intervals, against plain arithmetic, a bootstrap, and draws whose true lift is known."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_ccn.studies.simulation.lift import METRICS, Lift, Outcome, lift
from lightning_ccn.studies.simulation.traffic import COUNTS

CLICKS, CVR = METRICS["clicks_per_user"], METRICS["cvr"]
USERS = 400


def campaign(rng: np.random.Generator, uplift: float, runs: int = 1, spread: float = 0.0) -> tuple[Outcome, Outcome]:
    """A system and a baseline with the same users; the clicks of both depend on a rate of each user.

    Args:
        rng: Source of all random draws.
        uplift: Lift of the system's expected clicks.
        runs: Number of runs of each system.
        spread: Standard deviation of a run's effect on the logarithm of the clicks.
    """
    visits = rng.integers(1, 4, USERS)
    click_rate = rng.gamma(2.0, 1.0, USERS) * visits  # users differ far more than a Poisson distribution allows
    systems = []
    for factor in (1 + uplift, 1.0):
        models = []
        for _ in range(runs):
            counts = np.zeros((USERS, len(COUNTS)))
            counts[:, COUNTS.index("users")], counts[:, COUNTS.index("visits")] = 1, visits
            counts[:, COUNTS.index("clicks")] = rng.poisson(click_rate * factor * np.exp(rng.normal(0, spread)))
            models.append(counts)
        systems.append(Outcome(models, trained=True))
    return systems[0], systems[1]


def counted(here: Outcome, baseline: Outcome) -> Lift:
    found = lift(here, baseline, CLICKS)
    assert found is not None
    return found


def test_a_lift_is_the_ratio_of_the_rates() -> None:
    here, baseline = campaign(np.random.default_rng(1), uplift=0.2)
    clicks = [outcome.counts[:, COUNTS.index("clicks")].sum() for outcome in (here, baseline)]
    found = counted(here, baseline)
    assert found.lift == pytest.approx(clicks[0] / clicks[1] - 1)
    assert found.low < found.lift < found.high
    assert here.values()["clicks_per_user"] == pytest.approx(clicks[0] / USERS)


def test_a_system_has_a_lift_of_exactly_zero_over_itself() -> None:
    here, _ = campaign(np.random.default_rng(2), uplift=0.0)
    found = counted(here, here)
    assert (found.lift, found.low, found.high, found.se_visits) == (0, 0, 0, 0)


def test_the_standard_error_is_a_bootstraps_over_users() -> None:
    rng = np.random.default_rng(3)
    here, baseline = campaign(rng, uplift=0.1)
    draws = [rng.integers(0, USERS, USERS) for _ in range(2_000)]
    column = COUNTS.index("clicks")
    again = [np.log(here.counts[d, column].sum() / baseline.counts[d, column].sum()) for d in draws]
    assert counted(here, baseline).se_visits == pytest.approx(np.std(again), rel=0.08)


def test_what_both_systems_share_cancels() -> None:
    rng = np.random.default_rng(4)
    here, baseline = campaign(rng, uplift=0.1)
    strangers = Outcome([baseline.counts[rng.permutation(USERS)]], trained=True)
    assert counted(here, baseline).se_visits < 0.7 * counted(here, strangers).se_visits


@pytest.mark.parametrize(("runs", "spread"), [(1, 0.0), (3, 0.0), (3, 0.1)])
def test_nineteen_of_twenty_intervals_hold_the_true_lift(runs: int, spread: float) -> None:
    rng, held, truth, of_visits_alone = np.random.default_rng(5), 0, 0.15, 0
    for _ in range(300):
        found = counted(*campaign(rng, truth, runs, spread))
        held += found.low <= truth <= found.high
        of_visits_alone += abs(np.log1p(found.lift) - np.log1p(truth)) < 1.96 * found.se_visits
    # 300 draws of .95: .912 and .988 are three standard deviations off. Several runs may be on the wide side.
    assert 0.912 < held / 300 < (0.988 if runs == 1 else 1.001)
    if spread:
        assert of_visits_alone / 300 < 0.75


def test_runs_are_in_the_interval_only_where_both_sides_have_several() -> None:
    rng = np.random.default_rng(6)
    here, baseline = campaign(rng, 0.1, runs=3, spread=0.1)
    single = Outcome([baseline.counts], trained=True)
    reference = Outcome([here.counts], trained=False)  # not trained, so it does not vary over runs
    assert counted(here, baseline).se_runs is not None
    assert counted(here, single).se_runs is None
    of_baseline_alone = counted(reference, baseline)
    assert of_baseline_alone.se_runs is not None
    assert (
        of_baseline_alone.high - of_baseline_alone.low
        > counted(reference, single).high - counted(reference, single).low
    )


def test_without_purchases_a_lift_is_undefined() -> None:
    here, baseline = campaign(np.random.default_rng(7), uplift=0.1)
    assert lift(here, baseline, CVR) is None
    assert here.values()["cvr"] is None
    assert here.values()["orders_per_user"] == 0
