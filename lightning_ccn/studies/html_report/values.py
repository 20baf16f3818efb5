"""What `compare.json` says, read so that nothing has to be there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SystemEntry = Mapping[str, Any]


def finite(value: Any) -> float | None:
    """The number, unless it is missing or none."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def mean(system: SystemEntry, metric: str) -> float | None:
    """Over the runs that count."""
    return finite((system["summary"].get(metric) or {}).get("mean"))


def error(system: SystemEntry, metric: str) -> float | None:
    """The standard error of `mean`; None of a single run."""
    return finite((system["summary"].get(metric) or {}).get("se"))


def versus(system: SystemEntry, metric: str, what: str) -> float | None:
    """`difference`, `se` or `p` of the paired difference to the baseline."""
    return finite(((system.get("versus") or {}).get(metric) or {}).get(what))


def single(system: SystemEntry, metric: str) -> list[float]:
    """The metric of each run, those that do not count included."""
    values = [finite(run["metrics"].get(metric)) for run in system["runs"]]
    return [value for value in values if value is not None]


def diagnostics(system: SystemEntry, kind: str) -> list[Mapping[str, Any]]:
    """That part of the diagnostics of each run that has it."""
    found = [(run.get("diagnostics") or {}).get(kind) for run in system["runs"]]
    return [part for part in found if part]


def pairs(x: Sequence[Any], y: Sequence[Any]) -> list[tuple[float, float]]:
    """The points where both are numbers."""
    both = ((finite(a), finite(b)) for a, b in zip(x, y, strict=True))
    return [(a, b) for a, b in both if a is not None and b is not None]


def ranked(systems: Iterable[SystemEntry], metric: str) -> list[SystemEntry]:
    """Best first, undefined last."""
    return sorted(systems, key=lambda system: -(mean(system, metric) or -math.inf))


def family(system: SystemEntry) -> str:
    """Which colour a system has: what it makes of the trigger."""
    name = str(system["name"])
    families = {"ccn": "ccn", "tan": "tan", "dihn": "intent", "dian": "intent"}
    return next((colour for start, colour in families.items() if name.startswith(start)), "plain")
