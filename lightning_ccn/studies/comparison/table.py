"""The terminal table of a comparison, in the order of the paper's Table 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from lightning_ccn.studies.comparison.search import LEARNING_RATES

UNDEFINED = {"difference": None, "se": None, "p": None}


def table(comparison: Mapping[str, Any]) -> Table:
    """A table with one row per system.

    Args:
        comparison: Content of compare.json.
    """
    systems = comparison["systems"]
    runs = systems[0]["summary"]["auc"]["runs"]
    dropped = ", without the best and the worst run" if comparison["protocol"]["dropped"] else ""
    shown = Table(title=f"{comparison['dataset']['folder']}: mean of {runs} run{'s' * (runs != 1)}{dropped}")
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


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _with_error(value: Mapping[str, Any], digits: int) -> str:
    if value["mean"] is None:
        return "undefined"
    error = f" ±{value['se']:.{digits}f}".replace("±0.", "±.") if value["se"] is not None else ""
    return f"{value['mean']:.{digits}f}{error}"
