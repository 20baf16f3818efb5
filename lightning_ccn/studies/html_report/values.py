"""Reads values from the content of compare.json, any of which may be missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SystemEntry = Mapping[str, Any]


def metric_titles(comparison: Mapping[str, Any]) -> dict[str, str]:
    """Title of each metric by its name, in the order of the tables."""
    return {"auc": "AUC", "page_gauc": "page AUC", **(comparison.get("metrics") or {})}


def finite(value: Any) -> float | None:
    """The value as a float; None if it is not a finite number."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def mean(system: SystemEntry, metric: str) -> float | None:
    """The metric's mean over the runs that the summary includes."""
    return finite((system["summary"].get(metric) or {}).get("mean"))


def error(system: SystemEntry, metric: str) -> float | None:
    """The standard error of `mean`; None for a single run."""
    return finite((system["summary"].get(metric) or {}).get("se"))


def versus(system: SystemEntry, metric: str, what: str) -> float | None:
    """`difference`, `se`, `low`, `high`, `p` or `seeds_to_see` of the paired difference to the baseline."""
    return finite(((system.get("versus") or {}).get(metric) or {}).get(what))


def single(system: SystemEntry, metric: str) -> list[float]:
    """The metric of each run, also of those that the summary leaves out."""
    values = [finite(run["metrics"].get(metric)) for run in system["runs"]]
    return [value for value in values if value is not None]


def diagnostics(system: SystemEntry, kind: str) -> list[Mapping[str, Any]]:
    """That entry of diagnostics.json, for each run that has it."""
    found = [(run.get("diagnostics") or {}).get(kind) for run in system["runs"]]
    return [part for part in found if part]


def pairs(x: Sequence[Any], y: Sequence[Any]) -> list[tuple[float, float]]:
    """The points whose coordinates are both numbers."""
    both = ((finite(a), finite(b)) for a, b in zip(x, y, strict=True))
    return [(a, b) for a, b in both if a is not None and b is not None]


def ranked(systems: Iterable[SystemEntry], metric: str) -> list[SystemEntry]:
    """The systems from the best to the worst; those whose metric is undefined come last."""
    return sorted(systems, key=lambda system: -(mean(system, metric) or -math.inf))


def family(system: SystemEntry) -> str:
    """The CSS class that gives the system its colour: what the system makes of the trigger."""
    return str(system.get("family") or "plain")
