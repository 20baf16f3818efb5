"""A comparison for the terminal, in the order of the paper's Table 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

COLUMNS = {"auc": "AUC", "page_gauc": "page AUC", "logloss": "log loss", "normalized_entropy": "NE"}


def table(comparison: Mapping[str, Any]) -> Table:
    """One line a system.

    Args:
        comparison: content of compare.json.
    """
    runs = comparison["systems"][0]["summary"]["auc"]["runs"]
    dropped = comparison["protocol"]["dropped"]
    title = f"{comparison['dataset']['folder']}: mean of {runs} runs" + (" (best and worst left out)" * bool(dropped))
    shown = Table(title=title)
    shown.add_column("system", no_wrap=True)
    names = {system["name"]: system["title"] for system in comparison["systems"]}
    baseline = comparison["protocol"]["baseline"]
    for name in (
        *COLUMNS.values(),
        "calibration",
        f"AUC - {names.get(baseline, baseline)}",
        "p",
        "paper's AUC",
        "lr",
        "dense",
        "items/s",
        "min",
    ):
        shown.add_column(name, justify="right", no_wrap=True)
    for system in comparison["systems"]:
        of = system["summary"]
        versus = system["versus"]["auc"] if system["versus"] else {"difference": None, "se": None, "p": None}
        shown.add_row(
            system["title"],
            *(_with_error(of.get(name), 4) for name in COLUMNS),
            _number(of["calibration"]["mean"], "{:.3f}") if "calibration" in of else "",
            _number(versus["difference"], "{:+.4f}"),
            _number(versus["p"], "{:.3g}"),
            _number(system["paper_auc"], "{:.4f}"),
            f"x{system['scale']:g}",
            f"{system['parameters']['dense']:,}",
            _number(of["items_per_second"]["mean"], "{:,.0f}"),
            _number(of["minutes"]["mean"], "{:.1f}"),
        )
    for name, value in comparison["bounds"].items():
        shown.add_row(name.replace("_auc", " ranking"), f"{value:.4f}")
    return shown


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _with_error(value: Mapping[str, Any] | None, digits: int) -> str:
    if value is None or value["mean"] is None:
        return "undefined"
    error = f" ±{value['se']:.{digits}f}".replace("±0.", "±.") if value["se"] is not None else ""
    return f"{value['mean']:.{digits}f}{error}"
