"""Prints the tables of docs/results.md: `python docs/figures/results_table.py runs/compare/compare.json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

METRICS = ("auc", "page_gauc", "logloss", "calibration", "ndcg", "mrr", "hit_at_1")
BARE = ("logloss", "calibration")  # shown without a standard error
PLACES = {"calibration": 3}


def lines(comparison: Mapping[str, Any]) -> Iterator[str]:
    """The rows of the results, then those of the search, as Markdown."""
    titles = {name: comparison["metrics"][name] for name in METRICS}
    baseline = comparison["protocol"]["baseline"].upper()
    differences = (f"AUC - {baseline}, points", "95% interval", "p", "seeds for .1 points")
    yield from _heads("system", *titles.values(), *differences, "the paper's AUC")
    for system in comparison["systems"]:
        yield _row(
            system["title"],
            *(_mean(system["summary"].get(name), PLACES.get(name, 4), name in BARE) for name in METRICS),
            *_difference((system["versus"] or {}).get("auc")),
            _decimal(system["paper_auc"], 4) if system["paper_auc"] else "",
        )
    if "attainable_auc" in comparison["bounds"]:
        empty = [""] * (len(METRICS) + len(differences))
        yield _row("best attainable", _decimal(comparison["bounds"]["attainable_auc"], 4), *empty)
    yield ""
    yield from _heads(
        "system", "what the chosen trial changes", "mean validation AUC", "its first seed", "as configured",
        "ended early", "values in layers", "items per second", "minutes",
    )  # fmt: skip
    for system in comparison["systems"]:
        trials = system["search"]
        chosen = [trial["val_aucs"] for trial in trials if trial["settings"] == system["settings"]]
        yield _row(
            system["title"],
            ", ".join(f"{_option(name)} {value}" for name, value in system["settings"].items()) or "nothing",
            _decimal(sum(chosen[0]) / len(chosen[0]), 4) if chosen else "",
            _decimal(chosen[0][0], 4) if chosen else "",
            _decimal(trials[0]["val_aucs"][0], 4) if trials else "",
            f"{sum(trial['pruned'] for trial in trials)} of {len(trials)}",
            f"{system['parameters']['dense']:,}",
            f"{system['summary']['items_per_second']['mean']:,.0f}",
            f"{system['summary']['minutes']['mean']:.1f}",
        )


def _option(name: str) -> str:
    return "rates x" if name == "learning_rates" else f"`{name.rpartition('.')[2]}`"


def _heads(*names: str) -> Iterator[str]:
    yield _row(*names)
    yield "|" + "---|" * len(names)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _decimal(value: float, places: int) -> str:
    """Without the 0 before the point."""
    return f"{value:.{places}f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.{places}f}"


def _mean(found: Mapping[str, Any] | None, places: int, bare: bool) -> str:
    if found is None or found["mean"] is None:
        return ""
    error = "" if bare or found["se"] is None else f" ± {_decimal(found['se'], places)}"
    return _decimal(found["mean"], places) + error


def _difference(found: Mapping[str, Any] | None) -> tuple[str, str, str, str]:
    """In points: the difference, its interval, p, and the number of seeds that would find .1 points."""
    if found is None or found["difference"] is None:
        return ("",) * 4
    if found["p"] is None:
        return f"{100 * found['difference']:+.2f}", "", "", ""
    p = "<.001" if found["p"] < 0.001 else f"{found['p']:.3f}"[1:]
    interval = f"[{100 * found['low']:+.2f}, {100 * found['high']:+.2f}]"
    return f"{100 * found['difference']:+.2f}", interval, p, str(found["seeds_to_see"] or "never")


if __name__ == "__main__":
    print("\n".join(lines(json.loads(Path(sys.argv[1]).read_text()))))
