"""The report's figures and texts, filled into `templates/page.html`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lightning_ccn.studies.html_report import captions, figures, method, panels, tables
from lightning_ccn.studies.html_report.markup import render
from lightning_ccn.studies.html_report.values import SystemEntry, diagnostics, family, mean, metric_titles

FAMILIES = {
    "contrast": "uses the trigger, trained with contrast",
    "trigger": "uses the trigger, trained without contrast",
    "intent": "weighs the trigger by an estimated intent",
    "plain": "ignores the trigger",
}


@dataclass(frozen=True)
class ReportFigure:
    """A figure or a table under a heading.

    Attributes:
        title: The heading.
        body: HTML or SVG as `Markup`; empty if something is missing.
        caption: The text below it.
        missing: Why it cannot be shown; empty if it can.
    """

    title: str
    body: str = ""
    caption: str = ""
    missing: str = ""


def write_page(comparison: Mapping[str, Any], path: Path) -> None:
    """Writes the report.

    Args:
        comparison: Content of compare.json. A figure whose data it lacks is left out; the page says why.
        path: Path of the HTML file.
    """
    systems: Sequence[SystemEntry] = comparison["systems"]
    data = comparison["dataset"]
    shown = {family(system) for system in systems}
    every_figure = _figures(comparison)
    whole = " in all" if "left_out" in comparison else ""  # of which a run reads some
    page = render(
        "page.html",
        style=Markup(Path(__file__).with_name("page.css").read_text(encoding="utf-8")),
        systems=systems,
        folder=str(data["folder"]),
        heading=f"Comparison of {len(systems)} systems" if len(systems) > 1 else str(systems[0]["title"]),
        headline=captions.headline(comparison),
        quick=captions.QUICK if comparison.get("quick") else "",
        facts={
            "systems": str(len(systems)),
            "runs per system": str(len(systems[0]["runs"])),
            **captions.left_out_fact(comparison),
            **{f"{split} pages{whole}": tables.count(number) for split, number in data["pages"].items()},
            "items shown": tables.count(data["items"]),
            "click rate": f"{100 * data['clicks'] / max(data['items'], 1):.1f}%",
        },
        families={name: text for name, text in FAMILIES.items() if name in shown},
        terms=captions.terms(shown),
        marks=captions.marks(comparison),
        figures=every_figure,
        method=method.method(comparison),
        command=comparison["command"],
        not_shown=[figure for figure in every_figure.values() if figure.missing],
    )
    path.write_text(f"{page.strip()}\n", encoding="utf-8")


def _figures(comparison: Mapping[str, Any]) -> dict[str, ReportFigure]:
    """The figures by their names in the template."""
    systems: Sequence[SystemEntry] = comparison["systems"]
    baseline, titles = str(comparison["protocol"]["baseline"]), metric_titles(comparison)
    classes = panels.size_classes(systems)

    def heading(metric: str) -> str:
        return titles[metric][0].upper() + titles[metric][1:]

    return {
        "auc": ReportFigure(
            heading("auc"), figures.ranking(systems, "auc", baseline, titles), captions.auc(comparison)
        ),
        "page_auc": ReportFigure(
            heading("page_gauc"), figures.ranking(systems, "page_gauc", baseline, titles), captions.page_auc(comparison)
        ),
        "results": ReportFigure(
            "Results",
            tables.results(systems, baseline, titles, captions.repeated(comparison)),
            captions.tests(comparison),
        ),
        **_orders(comparison),
        **_left_out(comparison),
        "order": _unless_missing(
            "Order of the systems, here and in the paper",
            len(figures.in_both(systems)) > 1,
            "fewer than two of these systems are in the paper’s Table 2.",
            lambda: figures.order(systems),
            lambda: captions.order(systems),
        ),
        "bounds": _unless_missing(
            "Upper bounds of the AUC",
            comparison.get("bounds"),
            "they are known only for data from a synthetic world.",
            lambda: figures.bounds(systems, comparison["bounds"]),
            lambda: captions.bounds(comparison),
        ),
        "degrees": _unless_missing(
            "Collaborative degree of clicked and unclicked items",
            _recorded(systems, "degrees"),
            "no run has recorded degrees; only TAN and CCN have them.",
            lambda: panels.degrees(systems),
            lambda: captions.degrees(comparison),
        ),
        "sensitivity": _unless_missing(
            "Sensitivity of CCN to λ, τ and ξ",
            comparison.get("sensitivity"),
            "this comparison did not vary them.",
            lambda: figures.sensitivity(comparison["sensitivity"], titles),
            lambda: method.sensitivity(comparison),
        ),
        "page_sizes": _unless_missing(
            "Page AUC by page size",
            classes,
            "no run has recorded it.",
            lambda: panels.page_sizes(systems),
            lambda: captions.page_sizes(comparison, classes),
        ),
        "learning": _unless_missing(
            "Learning curves",
            panels.has_curves(systems),
            "no run has logged a loss or a validation AUC.",
            lambda: panels.learning(systems, baseline),
            lambda: captions.learning(comparison),
        ),
        "calibration": _unless_missing(
            "Calibration",
            _recorded(systems, "calibration"),
            "no run has recorded click rates by prediction.",
            lambda: panels.calibration(systems),
            lambda: captions.CALIBRATION,
        ),
        "measures": ReportFigure("Other metrics and costs", tables.measures(systems, titles), captions.MEASURES),
        "search": _unless_missing(
            "Search",
            any(system.get("search") for system in systems),
            method.not_searched(comparison),
            lambda: tables.search(systems),
            lambda: method.search(comparison),
        ),
    }


def _orders(comparison: Mapping[str, Any]) -> dict[str, ReportFigure]:
    """The table of the orders' AUC, for a comparison of systems with an order head."""
    systems, titles = comparison["systems"], metric_titles(comparison)
    if all(mean(system, tables.ORDER_AUC) is None for system in systems):
        return {}
    repeated, baseline = captions.repeated(comparison), str(comparison["protocol"]["baseline"])
    body = tables.results(systems, baseline, titles, repeated, (tables.ORDER_AUC,))
    return {"orders": ReportFigure("Orders", body, captions.ORDERS)}


def _left_out(comparison: Mapping[str, Any]) -> dict[str, ReportFigure]:
    """The table of the left-out values, for a comparison that has some."""
    if not (found := comparison.get("left_out")):
        return {}
    body = tables.by_left_out(found, comparison["systems"], str(comparison["protocol"]["baseline"]))
    return {"left_out": ReportFigure(f"Each {found['column']} left out of training", body, captions.LEFT_OUT)}


def _unless_missing(
    title: str, data: object, missing: str, draw: Callable[[], Markup], caption: Callable[[], str]
) -> ReportFigure:
    """The figure if its data exist; otherwise only its title and the reason."""
    return ReportFigure(title, draw(), caption()) if data else ReportFigure(title, missing=missing)


def _recorded(systems: Sequence[SystemEntry], kind: str) -> bool:
    return any(diagnostics(system, kind) for system in systems)
