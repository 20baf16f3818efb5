"""What several seeds of a system say: their mean without the extremes, and how sure a difference is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats
from scipy.stats import mstats

FEWEST_TO_DROP = 5  # runs; the paper repeats five times, and averages all but the best and the worst


def summary(values: Sequence[float | None]) -> dict[str, float | int | None]:
    """Mean of the runs but the best and the worst (of all, where there are fewer than five), and its standard error.

    The error of a trimmed mean comes from the winsorised variance (Tukey and McLaughlin 1963), not from the runs that
    were left: these lie too close together.

    Returns:
        `mean`, `se` (None for a single run) and `runs`, the number averaged. None, None and 0 where a value is None.

    >>> summary([1.0, 2.0, 3.0, 4.0, 10.0])
    {'mean': 3.0, 'se': 0.7453559924999299, 'runs': 3}
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


def paired(here: Mapping[int, float | None], baseline: Mapping[int, float | None]) -> dict[str, float | int | None]:
    """Difference of two systems over the seeds of both; none is dropped.

    Args:
        here, baseline: values by seed.

    Returns:
        `difference` (its mean), `se`, `p` (two-sided paired t-test) and `pairs`; `se` and `p` are None for fewer than
        two pairs, and `p` where all differences are equal.

    >>> paired({1: 0.70, 2: 0.71, 3: 0.72}, {1: 0.69, 2: 0.69, 3: 0.71})["difference"]
    0.013333333333333345
    """
    differences = []
    for seed in here.keys() & baseline.keys():
        one, other = here[seed], baseline[seed]
        if one is not None and other is not None:
            differences.append(one - other)
    if not differences:
        return {"difference": None, "se": None, "p": None, "pairs": 0}
    error = float(stats.sem(differences)) if len(differences) > 1 else None
    p = float(stats.ttest_1samp(differences, 0.0).pvalue) if error else None
    return {"difference": float(np.mean(differences)), "se": error, "p": p, "pairs": len(differences)}
