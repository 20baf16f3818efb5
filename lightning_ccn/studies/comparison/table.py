"""The terminal table of a comparison, in the order of the paper's Table 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from lightning_ccn.studies.comparison.search import LEARNING_RATES

UNDEFINED: Mapping[str, Any] = dict.fromkeys(("difference", "low", "high", "p"))


def table(comparison: Mapping[str, Any]) -> Table:
    """A table with one row per system.

    Args:
        comparison: Content of compare.json.
    """
    systems = comparison["systems"]
    runs = systems[0]["summary"]["auc"]["runs"]
    if left_out := comparison.get("left_out"):
        mean_of = f"mean over {runs} values of {left_out['column']}, each left out of training"
    else:
        dropped = ", without the best and the worst run" if comparison["protocol"]["dropped"] else ""
        mean_of = f"mean of {runs} run{'s' * (runs != 1)}{dropped}"
    shown = Table(title=f"{comparison['dataset']['folder']}: {mean_of}")
    shown.add_column("system", no_wrap=True)
    metrics = {
        name: title
        for name, title in comparison["metrics"].items()
        if any(name in system["summary"] for system in systems)
    }
    titles = {system["name"]: system["title"] for system in systems}
    baseline = comparison["protocol"]["baseline"]
    for heading in (
        *(title.replace(" ", "\n") for title in metrics.values()),
        f"AUC - {titles.get(baseline, baseline)}",
        "95% interval",
        "p",
        "paper's\nAUC",
        "lr",
        "dense",
        "items/s",
        "min",
    ):
        shown.add_column(heading, justify="right", no_wrap=True)
    for system in systems:
        summary = system["summary"]
        versus = system["versus"]["auc"] if system["versus"] else UNDEFINED
        shown.add_row(
            system["title"],
            *(_with_error(summary[name], 4) if name in summary else "" for name in metrics),
            _number(versus["difference"], "{:+.4f}"),
            _interval(versus),
            _number(versus["p"], "{:.3g}"),
            _number(system["paper_auc"], "{:.4f}"),
            f"x{system['settings'].get(LEARNING_RATES, 1):g}",
            f"{system['parameters']['dense']:,}",
            _number(summary["items_per_second"]["mean"], "{:,.0f}"),
            _number(summary["minutes"]["mean"], "{:.1f}"),
        )
    for name, value in comparison["bounds"].items():
        shown.add_row(name.replace("_auc", " ranking"), f"{value:.4f}")
    return shown


def table_by_value(comparison: Mapping[str, Any]) -> Table:
    """A table with one row per left-out value: the AUC of each system, and its difference to the baseline.

    Args:
        comparison: Content of compare.json, of a comparison that left something out.
    """
    left_out, baseline = comparison["left_out"], comparison["protocol"]["baseline"]
    title = next((system["title"] for system in comparison["systems"] if system["name"] == baseline), None)
    minus = f", and AUC - {title}" if title else ""
    shown = Table(title=f"AUC on each {left_out['column']} that training left out{minus}")
    shown.add_column(left_out["column"], no_wrap=True)
    for heading in ("test\npages", "click\nrate", *(system["title"] for system in comparison["systems"])):
        shown.add_column(heading, justify="right", no_wrap=True)
    for entry in left_out["values"]:
        rate = entry["clicks"] / entry["items"]
        cells = (_auc_and_difference(system) for system in entry["systems"])
        shown.add_row(entry["name"], f"{entry['pages']['test']:,}", f"{rate:.3f}", *cells)
    shown.add_section()
    shown.add_row("mean", "", "", *(_auc_and_difference(system) for system in comparison["systems"]))
    of_systems = (system["versus"]["auc"] if system["versus"] else UNDEFINED for system in comparison["systems"])
    shown.add_row("95% interval", "", "", *(_interval(versus) for versus in of_systems))
    return shown


def _auc_and_difference(system: Mapping[str, Any]) -> str:
    versus = system["versus"]["auc"] if system["versus"] else UNDEFINED
    mean = system["summary"].get("auc", {}).get("mean")
    return f"{_number(mean, '{:.4f}') or 'undefined'} {_number(versus['difference'], '{:+.4f}')}".rstrip()


def _interval(versus: Mapping[str, Any]) -> str:
    """The 95% interval of a difference; empty if it is unknown, as of a single pair of runs."""
    low, high = versus.get("low"), versus.get("high")
    return "" if low is None or high is None else f"{low:+.4f} to {high:+.4f}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _with_error(value: Mapping[str, Any], digits: int) -> str:
    if value["mean"] is None:
        return "undefined"
    error = f" ±{value['se']:.{digits}f}".replace("±0.", "±.") if value["se"] is not None else ""
    return f"{value['mean']:.{digits}f}{error}"
