"""Statistics over the seeds of a comparison: a trimmed mean, and the paired difference of two systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.stats import mstats

PAIRED = ("difference", "se", "run_se", "page_se", "low", "high", "p", "pairs", "seeds_to_see")
SMALLEST_OF_INTEREST = 0.001  # .1 points of AUC: a user of 100 million impressions would want to know
FEWEST_TO_DROP = 5  # runs; the paper repeats five times, and averages all but the best and the worst


def summary(values: Sequence[float | None]) -> dict[str, float | int | None]:
    """Mean and standard error over runs, without the best and the worst if there are five or more.

    The error of a trimmed mean comes from the winsorised variance (Tukey and McLaughlin 1963). The variance of the
    remaining runs would be too small.

    Args:
        values: The value of each run; None if undefined.

    Returns:
        `mean`, `se` (None for a single run) and `runs`, the number of runs averaged. None, None and 0 if a value is
        None.

    >>> found = summary([1.0, 2.0, 3.0, 4.0, 10.0])
    >>> found["mean"], round(found["se"], 4), found["runs"]
    (3.0, 0.7454, 3)
    """
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return {"mean": None, "se": None, "runs": 0}
    count = len(known)
    if count < FEWEST_TO_DROP:
        return over_values(known)
    share = 1 / count, 1 / count
    error = float(mstats.trimmed_stde(known, limits=share))
    return {"mean": float(mstats.trimmed_mean(known, limits=share)), "se": error, "runs": count - 2}


def paired(
    system: Mapping[int, float | None],
    baseline: Mapping[int, float | None],
    page_effects: np.ndarray | None = None,
) -> dict[str, float | int | None]:
    """Mean difference of two systems over the seeds that both have. No run is dropped.

    Two errors add up: that of the runs (another seed draws other weights and another order of the pages), and that of
    the pages of the test split (another sample of pages). The degrees of freedom of the sum are Welch and
    Satterthwaite's; those of the pages are counted as infinite.

    Args:
        system: Value of each run of the system, by seed.
        baseline: Value of each run of the baseline, by seed.
        page_effects: [users] or [pages], effect of each on the mean difference, see `evaluation.page_effects`; None if
            unknown, and then the error is that of the runs alone.

    Returns:
        `difference` (the mean); `se`, and its parts `run_se` and `page_se`; `low` and `high`, the 95% interval; `p`
        (two-sided t-test); `pairs`, the number of seeds; `seeds_to_see`, what `runs_to_see` says of the smallest
        difference of interest. All but the difference, `page_se` and `pairs` are None for fewer than two pairs; `p` and
        the interval also if there is no error at all.

    >>> found = paired({1: 0.75, 2: 0.75, 3: 1.0}, {1: 0.5, 2: 0.25, 3: 0.25})
    >>> found["difference"], found["pairs"], round(found["p"], 3)
    (0.5, 3, 0.074)
    """
    differences = []
    for seed in shared_seeds(system, baseline):
        one, other = system[seed], baseline[seed]
        assert one is not None
        assert other is not None
        differences.append(one - other)
    found: dict[str, float | int | None] = dict.fromkeys(PAIRED) | {"pairs": len(differences)}
    if page_effects is not None:
        found["page_se"] = float(np.sqrt((page_effects**2).sum()))
    if not differences:
        return found
    found["difference"] = mean = float(np.mean(differences))
    if len(differences) < 2:
        return found
    found["run_se"] = of_runs = float(stats.sem(differences))
    found["seeds_to_see"] = runs_to_see(
        SMALLEST_OF_INTEREST, of_runs * len(differences) ** 0.5, found["page_se"] or 0.0
    )
    found["se"] = error = float(np.hypot(of_runs, found["page_se"] or 0.0))
    if error:
        freedom = float(_freedom(len(differences), of_runs, error))
        found["p"] = float(2 * stats.t.sf(abs(mean) / error, freedom))
        reach = error * float(stats.t.ppf(0.975, freedom))
        found["low"], found["high"] = mean - reach, mean + reach
    return found


def over_values(of_values: Sequence[float | None]) -> dict[str, float | int | None]:
    """Mean and standard error over left-out values, all of which count: they are what the mean is about.

    Args:
        of_values: The mean over the runs of each value; None if undefined.

    Returns:
        What `summary` returns; `runs` is the number of values.

    >>> over_values([0.25, 0.75])
    {'mean': 0.5, 'se': 0.25, 'runs': 2}
    """
    known = [value for value in of_values if value is not None]
    if not known or len(known) < len(of_values):
        return {"mean": None, "se": None, "runs": 0}
    error = float(stats.sem(known)) if len(known) > 1 else None
    return {"mean": float(np.mean(known)), "se": error, "runs": len(known)}


def shared_seeds(system: Mapping[int, float | None], baseline: Mapping[int, float | None]) -> list[int]:
    """The seeds for which both have a value, in order."""
    both = system.keys() & baseline.keys()
    return sorted(seed for seed in both if system[seed] is not None and baseline[seed] is not None)


def runs_to_see(difference: float, run_sd: float, page_se: float, most: int = 1000) -> int | None:
    """Number of seeds with which a difference is found (p < .05, two-sided) in four of five comparisons.

    Args:
        difference: The smallest difference of interest, above 0.
        run_sd: Standard deviation of the paired differences over seeds.
        page_se: Standard error over pages, which more seeds do not make smaller.
        most: The largest number to consider.

    Returns:
        None if more than `most` are needed, or no number is enough because of the error over pages.

    >>> runs_to_see(0.001, run_sd=0.001, page_se=0.0), runs_to_see(0.001, run_sd=0.001, page_se=0.0005)
    (10, None)
    """
    runs = np.arange(2, most + 1)
    of_runs = run_sd / np.sqrt(runs)
    error = np.hypot(of_runs, page_se)
    freedom = _freedom(runs, of_runs, error)
    enough = error * (stats.t.ppf(0.975, freedom) + stats.t.ppf(0.8, freedom)) <= difference
    return int(runs[enough.argmax()]) if enough.any() else None


def _freedom(runs: npt.ArrayLike, of_runs: npt.ArrayLike, error: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Degrees of freedom of an error of which `of_runs` is known from so many runs, and the rest well."""
    with np.errstate(divide="ignore", invalid="ignore"):  # infinitely many if the runs do not differ
        return np.asarray(np.subtract(runs, 1) * np.divide(error, of_runs) ** 4)
