"""Statistics over the seeds of a comparison: a trimmed mean, and the paired difference of two systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats
from scipy.stats import mstats

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
        error = float(stats.sem(known)) if count > 1 else None
        return {"mean": float(np.mean(known)), "se": error, "runs": count}
    share = 1 / count, 1 / count
    error = float(mstats.trimmed_stde(known, limits=share))
    return {"mean": float(mstats.trimmed_mean(known, limits=share)), "se": error, "runs": count - 2}


def paired(system: Mapping[int, float | None], baseline: Mapping[int, float | None]) -> dict[str, float | int | None]:
    """Mean difference of two systems over the seeds that both have. No run is dropped.

    Args:
        system: Value of each run of the system, by seed.
        baseline: Value of each run of the baseline, by seed.

    Returns:
        `difference` (the mean), `se`, `p` (two-sided paired t-test) and `pairs`, the number of seeds. `se` and `p` are
        None for fewer than two pairs, and `p` if all differences are equal.

    >>> found = paired({1: 0.75, 2: 0.75, 3: 1.0}, {1: 0.5, 2: 0.25, 3: 0.25})
    >>> found["difference"], found["pairs"], round(found["p"], 3)
    (0.5, 3, 0.074)
    """
    differences = []
    for seed in system.keys() & baseline.keys():
        one, other = system[seed], baseline[seed]
        if one is not None and other is not None:
            differences.append(one - other)
    if not differences:
        return {"difference": None, "se": None, "p": None, "pairs": 0}
    error = float(stats.sem(differences)) if len(differences) > 1 else None
    p = float(stats.ttest_1samp(differences, 0.0).pvalue) if error else None
    return {"difference": float(np.mean(differences)), "se": error, "p": p, "pairs": len(differences)}
