"""The tables: results, everything else that was measured, the search for the learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_ccn.studies.html_report.markup import Markup, tag
from lightning_ccn.studies.html_report.svg import decimal
from lightning_ccn.studies.html_report.values import SystemEntry, error, family, finite, mean, ranked, versus

NONE = "–"


def results(systems: Sequence[SystemEntry], baseline: str) -> Markup:
    """AUC and page AUC with their standard errors, and the paired differences to the baseline."""
    title = next((str(system["title"]) for system in systems if system["name"] == baseline), baseline)
    less = f"less {title}’s, points"
    spans = {2: ("AUC", "page AUC"), 3: (less, less)}
    groups = [tag("th", tag("span", spans[n % 2 + 2][n // 2]), colspan=n % 2 + 2, class_="group") for n in range(4)]
    heads = tag("tr", tag("th", "system"), *(tag("th", text) for text in ("mean", "± SE", "mean", "± SE", "p") * 2))
    rows = []
    for system in ranked(systems, "auc"):
        cells = []
        for metric in ("auc", "page_gauc"):
            cells += [_cell(mean(system, metric), 4, metric), _cell(error(system, metric), 4)]
            for what in ("difference", "se"):
                value = versus(system, metric, what)
                cells.append(
                    _cell(None if value is None else 100 * value, 2, sign="+" if what == "difference" else "-")
                )
            cells.append(tag("td", probability(versus(system, metric, "p"))))
        rows.append(tag("tr", _name(system), *cells, data_system=system["name"]))
    return _table([tag("tr", tag("th"), *groups), heads], rows)


def measures(systems: Sequence[SystemEntry]) -> Markup:
    """The other metrics, and what each system costs."""
    metrics = {"logloss": "log loss", "normalized_entropy": "normalised entropy", "calibration": "calibration",
               "intent_auc": "intent AUC"}  # fmt: skip
    metrics = {key: text for key, text in metrics.items() if any(mean(s, key) is not None for s in systems)}
    names = [*metrics.values(), "learning rate", "table weights", "layer weights", "items/s", "minutes"]
    rows = []
    for system in systems:
        parameters = system.get("parameters") or {}
        cells = [_cell(mean(system, key), 4, key) for key in metrics]
        scale = finite(system.get("scale"))
        cells.append(tag("td", NONE if scale is None else f"× {scale:g}"))
        cells += [tag("td", count(parameters.get(kind))) for kind in ("tables", "dense")]
        cells += [tag("td", count(mean(system, "items_per_second"))), _cell(mean(system, "minutes"), 1)]
        rows.append(tag("tr", _name(system), *cells, data_system=system["name"]))
    return _table([tag("tr", tag("th", "system"), *(tag("th", name) for name in names))], rows)


def search(systems: Sequence[SystemEntry]) -> Markup:
    """Validation AUC of each learning rate that was tried; the chosen one stands out."""
    scales = sorted({float(trial["scale"]) for system in systems for trial in system.get("search") or []})
    rows = []
    for system in systems:
        found = {float(trial["scale"]): finite(trial.get("val_auc")) for trial in system.get("search") or []}
        chosen = finite(system.get("scale"))
        rows.append(
            tag(
                "tr", _name(system), *(_cell(found.get(s), 4, class_="chosen" if s == chosen else None) for s in scales)
            )
        )
    head = tag("tr", tag("th", "learning rate"), *(tag("th", f"× {scale:g}") for scale in scales))
    return _table([head], rows, "scroll narrow")


def probability(p: float | None) -> str:
    """A p-value, as far as one can be told."""
    return NONE if p is None else "< .001" if p < 0.001 else decimal(p, 3)


def count(value: Any) -> str:
    """A whole number with thousands set apart."""
    number = finite(value)
    return NONE if number is None else f"{number:,.0f}"


def _name(system: Mapping[str, Any]) -> Markup:
    return tag("th", str(system["title"]), scope="row", class_=family(system))


def _cell(
    value: float | None, places: int, metric: str | None = None, sign: str = "-", class_: str | None = None
) -> Markup:
    return tag("td", NONE if value is None else decimal(value, places, sign), data_metric=metric, class_=class_)


def _table(heads: Sequence[Markup], rows: Sequence[Markup], class_: str = "scroll") -> Markup:
    table = tag("table", tag("thead", *heads), tag("tbody", *rows))
    return tag("div", table, class_=class_, tabindex=0, role="region", aria_label="table")
