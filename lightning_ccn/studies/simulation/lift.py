"""Rates of a simulated promotion, such as CTR, and the lift of one system over another with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lightning_ccn.studies.simulation.traffic import COUNTS

CONFIDENCE = 0.95


@dataclass(frozen=True)
class CampaignMetric:
    """A ratio of two counts.

    Attributes:
        title: Name in tables.
        counted: The count in the numerator, one of `COUNTS`.
        per: The count in the denominator.
    """

    title: str
    counted: str
    per: str


# A visit is the paper's "daily user view". CTR is the share of visits with a click, and CVR the share of these with a
# purchase. Then CTR x CVR = visit purchase rate, as in Table 4 (1.0221 x 1.0637 = 1.0872, printed 1.0885;
# 1.1748 x 1.1006 = 1.2930, printed 1.2938). All systems show the same number of items to the same users, so clicks per
# exposed item and clicks per user have the same lift.
METRICS = {
    "ctr": CampaignMetric("CTR", "clicking_visits", "visits"),
    "clicks_per_user": CampaignMetric("Clicks/User", "clicks", "users"),
    "cvr": CampaignMetric("CVR", "buying_visits", "clicking_visits"),
    "orders_per_user": CampaignMetric("Orders/User", "orders", "users"),
    "visit_purchase_rate": CampaignMetric("Visit Purchase Rate", "buying_visits", "visits"),
    "orders_per_click": CampaignMetric("Orders/Click", "orders", "clicks"),
    "alike_shown": CampaignMetric("Shown items of the trigger's category", "alike_shown", "shown"),
    "alike_clicked": CampaignMetric("Clicks on items of the trigger's category", "alike_clicks", "clicks"),
}
SHARES = ("alike_shown", "alike_clicked")  # metrics that a log has too, see `log_share`


class Outcome:
    """Clicks and orders of all visits under one system.

    Args:
        runs: The counts under each of its trained models, float64 [users, `COUNTS`], see `Traffic.serve`; all systems
            have the same users in the same order.
        trained: Whether the system is trained; a reference is not, and has a single run.

    Attributes:
        counts: float64 [users, `COUNTS`], the mean over the runs.
        totals: float64 [runs, `COUNTS`], the sums over users.
        trained: Whether the system is trained.
    """

    def __init__(self, runs: list[np.ndarray], *, trained: bool) -> None:
        self.counts = np.mean(runs, axis=0)
        self.totals = np.stack([counts.sum(axis=0) for counts in runs])
        self.trained = trained

    def values(self, run: int | None = None) -> dict[str, float | None]:
        """Every metric of one run, or of the mean over all runs if `run` is None; a metric is None if undefined."""
        totals = self.totals.mean(axis=0) if run is None else self.totals[run]
        found: dict[str, float | None] = {}
        for name, metric in METRICS.items():
            counted, per = (float(totals[COUNTS.index(count)]) for count in (metric.counted, metric.per))
            found[name] = counted / per if per else None
        return found


@dataclass(frozen=True)
class Lift:
    """A lift, .1 for +10%, with its interval.

    Attributes:
        lift: The lift.
        low: Lower end of the interval.
        high: Upper end of the interval.
        se_visits: Standard error of ln(1 + lift) over users and their visits, for the given models.
        se_runs: Standard error over training runs; None if a system has only one run, and then the interval covers
            the visits alone.
    """

    lift: float
    low: float
    high: float
    se_visits: float
    se_runs: float | None


def lift(system: Outcome, baseline: Outcome, metric: CampaignMetric) -> Lift | None:
    """Lift of a system's metric over the baseline's; None if either is zero or undefined.

    The interval comes from the delta method for the logarithm of a ratio of two ratios. Its sampling units are users,
    because the visits of one user are not independent. With r = N / D for each system and n_u, d_u a user's counts,

        the variance of ln(r_system / r_baseline) is the sum over u of
        ((n_u / N - d_u / D of the system) - (n_u / N - d_u / D of the baseline))^2.

    Both systems have the same visits and the same random draws, and what they share cancels. (A bootstrap over users
    gives the same interval, as a test shows, but needs a seed.) If both systems were trained several times, the
    variance of each mean over its runs is added, and the quantile is Student's with the degrees of freedom of Welch and
    Satterthwaite. Both terms include the random draws of each run, so the interval is rather too wide than too narrow.
    It does not include how lifts differ from one world to another.
    """
    rates = [_rate(outcome, metric) for outcome in (system, baseline)]
    if not all(rates):
        return None
    influence = _influence(system, metric) - _influence(baseline, metric)
    users = len(influence)
    of_visits = users / (users - 1) * float(np.square(influence).sum())
    terms = [(of_visits, users - 1)]
    trained = [outcome for outcome in (system, baseline) if outcome.trained]
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


def _rate(outcome: Outcome, metric: CampaignMetric) -> float:
    counted, per = _columns(outcome.counts, metric)
    return float(counted.sum() / per.sum()) if per.sum() else 0.0


def _influence(outcome: Outcome, metric: CampaignMetric) -> np.ndarray:
    """float64 [users]: the first-order contribution of each user to the logarithm of the rate."""
    counted, per = _columns(outcome.counts, metric)
    return counted / counted.sum() - per / per.sum()


def _over_runs(outcome: Outcome, metric: CampaignMetric) -> tuple[float, int]:
    """First-order variance of the logarithm of the mean rate over training runs, and its degrees of freedom."""
    counted, per = _columns(outcome.totals, metric)
    rates = counted / np.maximum(per, 1)
    return float(rates.var(ddof=1) / len(rates) / rates.mean() ** 2), len(rates) - 1


def _columns(counts: np.ndarray, metric: CampaignMetric) -> tuple[np.ndarray, np.ndarray]:
    return counts[:, COUNTS.index(metric.counted)], counts[:, COUNTS.index(metric.per)]
