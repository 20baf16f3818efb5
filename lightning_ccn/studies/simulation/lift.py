"""Rates of a simulated campaign, and how far one system's are above another's, with an interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lightning_ccn.studies.simulation.traffic import COUNTS

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Metric:
    """A ratio of two of the counts."""

    title: str
    counted: str
    per: str


# A visit is the paper's "daily user view". Its CTR is then the share of visits with a click, and its CVR that of these
# which buy: read so, CTR x CVR = visit purchase rate, as in Table 4 (1.0221 x 1.0637 = 1.0872, printed 1.0885;
# 1.1748 x 1.1006 = 1.2930, printed 1.2938). All systems show as many items to as many users, so clicks per exposed
# item lift as clicks per user do.
METRICS = {
    "ctr": Metric("CTR", "clicking_visits", "visits"),
    "clicks_per_user": Metric("Clicks/User", "clicks", "users"),
    "cvr": Metric("CVR", "buying_visits", "clicking_visits"),
    "orders_per_user": Metric("Orders/User", "orders", "users"),
    "visit_purchase_rate": Metric("Visit Purchase Rate", "buying_visits", "visits"),
    "orders_per_click": Metric("Orders/Click", "orders", "clicks"),
}


class Outcome:
    """What became of the visits under one system.

    Args:
        runs: of each of its trained models (one of a reference), float64 [users, 6], see `Traffic.serve`; the same
            users in the same order for all systems.
        trained: whether another training run would rank otherwise.

    Attributes:
        counts: float64 [users, 6], mean over the runs.
        totals: float64 [runs, 6], sums over users.
        trained: as above.
    """

    def __init__(self, runs: list[np.ndarray], *, trained: bool) -> None:
        self.counts = np.mean(runs, axis=0)
        self.totals = np.stack([counts.sum(axis=0) for counts in runs])
        self.trained = trained

    def values(self, run: int | None = None) -> dict[str, float | None]:
        """Every metric, of one run or of their mean; None where nothing was counted."""
        totals = self.totals.mean(axis=0) if run is None else self.totals[run]
        found: dict[str, float | None] = {}
        for name, metric in METRICS.items():
            counted, per = (float(totals[COUNTS.index(count)]) for count in (metric.counted, metric.per))
            found[name] = counted / per if per else None
        return found


@dataclass(frozen=True)
class Lift:
    """A lift rate, .1 for +10%, with the ends of its interval.

    Attributes:
        lift, low, high: rates.
        se_visits: standard error of ln(1 + lift) over the visits, for these very models.
        se_runs: over training runs; None where only one was trained, and the interval then covers the visits alone.
    """

    lift: float
    low: float
    high: float
    se_visits: float
    se_runs: float | None


def lift(here: Outcome, baseline: Outcome, metric: Metric) -> Lift | None:
    """Lift of a system's metric over the baseline's; None where either is zero or undefined.

    The interval is the delta method's, of the logarithm of the ratio of two ratios, with users as the units that are
    drawn: a user's visits are not independent. With r = N / D for each system and n_u, d_u a user's counts,

        ln(r_system / r_baseline) varies by the sum over u of (n_u / N - d_u / D  -  the same of the baseline)^2,

    in which what both systems share, the same visits and the same luck, cancels. (A bootstrap over users comes to the
    same, as a test shows, and would need its own seed.) Where systems and baseline were trained several times, each
    mean's variance over its runs is added, and the quantile is Student's with Welch and Satterthwaite's degrees of
    freedom. As each run's own luck is in both terms, the sum is on the wide side. One world is behind it all: how
    lifts differ from world to world is not in the interval.
    """
    rates = [_rate(outcome, metric) for outcome in (here, baseline)]
    if not all(rates):
        return None
    influence = _influence(here, metric) - _influence(baseline, metric)
    users = len(influence)
    of_visits = users / (users - 1) * float(np.square(influence).sum())
    terms = [(of_visits, users - 1)]
    trained = [outcome for outcome in (here, baseline) if outcome.trained]
    repeated = all(len(outcome.totals) > 1 for outcome in trained)
    if repeated:
        terms += [_over_runs(outcome, metric) for outcome in trained]
    variance = sum(term for term, _ in terms)
    middle, reach = math.log(rates[0] / rates[1]), 0.0
    if variance:
        freedom = variance**2 / sum(term**2 / degrees for term, degrees in terms)
        reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(variance)
    return Lift(
        lift=math.expm1(middle),
        low=math.expm1(middle - reach),
        high=math.expm1(middle + reach),
        se_visits=math.sqrt(of_visits),
        se_runs=math.sqrt(variance - of_visits) if repeated else None,
    )


def _rate(outcome: Outcome, metric: Metric) -> float:
    counted, per = _columns(outcome.counts, metric)
    return float(counted.sum() / per.sum()) if per.sum() else 0.0


def _influence(outcome: Outcome, metric: Metric) -> np.ndarray:
    """float64 [users]: what each adds to the logarithm of the rate, to first order."""
    counted, per = _columns(outcome.counts, metric)
    return counted / counted.sum() - per / per.sum()


def _over_runs(outcome: Outcome, metric: Metric) -> tuple[float, int]:
    """Variance of the logarithm of the mean rate over training runs, to first order, and its degrees of freedom."""
    counted, per = _columns(outcome.totals, metric)
    rates = counted / np.maximum(per, 1)
    return float(rates.var(ddof=1) / len(rates) / rates.mean() ** 2), len(rates) - 1


def _columns(counts: np.ndarray, metric: Metric) -> tuple[np.ndarray, np.ndarray]:
    return counts[:, COUNTS.index(metric.counted)], counts[:, COUNTS.index(metric.per)]
