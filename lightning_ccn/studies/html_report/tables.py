"""The tables: results, other metrics and costs, search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from lightning_ccn.studies.html_report.markup import render
from lightning_ccn.studies.html_report.svg import decimal
from lightning_ccn.studies.html_report.values import SystemEntry, error, family, finite, mean, ranked, versus

MISSING = "–"
RANKED = ("auc", "page_gauc")  # the metrics of the figures and of the first table
ORDER_AUC = "order_auc"  # the metric of the table of orders


class TableCell(NamedTuple):
    """A cell: its text, the metric that it shows, and whether it stands out."""

    text: str
    metric: str = ""
    chosen: bool = False


class TableRow(NamedTuple):
    """A system's row: its name, title and family, and the cells beside the title."""

    name: str
    title: str
    family: str
    cells: list[TableCell]


def results(
    systems: Sequence[SystemEntry],
    baseline: str,
    titles: Mapping[str, str],
    repeated: str,
    metrics: Sequence[str] = RANKED,
) -> Markup:
    """Metrics with their standard errors, and the paired differences to the baseline with their intervals.

    Args:
        systems: Entries of compare.json.
        baseline: Name of the baseline.
        titles: Title of each metric by its name.
        repeated: What there may be more of, to find a smaller difference: `seeds`, or values that are left out.
        metrics: Their names; the first one ranks the systems.
    """
    baseline_title = title_of(systems, baseline)
    groups = [group for metric in metrics for group in ((titles[metric], 2), (f"minus {baseline_title}, points", 4))]
    rows = []
    for system in ranked(systems, metrics[0]):
        cells = []
        for metric in metrics:
            cells += [_number(mean(system, metric), 4, metric), _number(error(system, metric), 4)]
            cells += [_number(_points(versus(system, metric, "difference")), 2, sign="+")]
            cells += [TableCell(interval(system, metric))]
            cells += [TableCell(probability(versus(system, metric, "p")))]
            cells += [TableCell(count(versus(system, metric, "seeds_to_see")))]
        rows.append(_row(system, cells))
    return _table(["system", *("mean", "± SE", "mean", "95% interval", "p", repeated) * len(metrics)], rows, groups)


def by_left_out(left_out: Mapping[str, Any], systems: Sequence[SystemEntry], baseline: str) -> Markup:
    """AUC of each system on each left-out value, and its difference to the baseline; their means over all values.

    Args:
        left_out: `left_out` of compare.json.
        systems: Entries of compare.json.
        baseline: Name of the baseline.
    """
    others = [str(system["name"]) for system in systems if system.get("versus")]
    titles = [str(system["title"]) for system in systems]
    bound = any(entry["bounds"].get("attainable_auc") is not None for entry in left_out["values"])
    headings = [str(left_out["column"]), "pages", "click rate", *["attainable"] * bound, *titles]
    headings += [title_of(systems, name) for name in others]
    groups = [("test split", 2), ("AUC", len(systems) + bound)]
    groups += [(f"minus {title_of(systems, baseline)}, points", len(others))] if others else []
    rows = []
    for entry in left_out["values"]:
        cells = [TableCell(count(entry["pages"]["test"])), _number(entry["clicks"] / entry["items"], 3)]
        cells += [_number(finite(entry["bounds"].get("attainable_auc")), 4)] * bound
        rows.append(TableRow("", str(entry["name"]), "", [*cells, *_aucs(entry["systems"], others)]))
    gap = [TableCell("")] * (2 + bound)
    rows.append(TableRow("", "mean", "", [*gap, *_aucs(systems, others)]))
    by_name = {str(system["name"]): system for system in systems}
    intervals = [TableCell(interval(by_name[name], "auc")) for name in others]
    rows.append(TableRow("", "95% interval", "", [*gap, *[TableCell("")] * len(systems), *intervals]))
    return _table(headings, rows, groups)


def _aucs(systems: Sequence[SystemEntry], others: Sequence[str]) -> list[TableCell]:
    """The AUC of every system, and the differences of those that have one."""
    by_name = {str(system["name"]): system for system in systems}
    differences = (_points(versus(by_name[name], "auc", "difference")) for name in others)
    return [
        *(_number(mean(system, "auc"), 4) for system in systems),
        *(_number(difference, 2, sign="+") for difference in differences),
    ]


def measures(systems: Sequence[SystemEntry], titles: Mapping[str, str]) -> Markup:
    """The other metrics, and the size and speed of each system.

    Args:
        systems: Entries of compare.json.
        titles: Title of each metric by its name.
    """
    metrics = [
        name
        for name in titles
        if name not in (*RANKED, ORDER_AUC) and any(mean(system, name) is not None for system in systems)
    ]
    rows = []
    for system in systems:
        parameters, scale = (
            system.get("parameters") or {},
            finite((system.get("settings") or {}).get("learning_rates", 1)),
        )
        cells = [_number(mean(system, name), 4, name) for name in metrics]
        cells.append(TableCell(MISSING if scale is None else f"× {scale:g}"))
        cells += [TableCell(count(parameters.get(kind))) for kind in ("tables", "dense")]
        cells += [TableCell(count(mean(system, "items_per_second"))), _number(mean(system, "minutes"), 1)]
        rows.append(_row(system, cells))
    costs = ["learning rate", "table parameters", "dense parameters", "items/s", "minutes"]
    return _table(["system", *(titles[name] for name in metrics), *costs], rows)


def search(systems: Sequence[SystemEntry]) -> Markup:
    """Validation AUC of each system as configured and as chosen, and what the chosen trial changed."""
    rows = []
    for system in systems:
        trials = system.get("search") or []
        chosen = next((trial for trial in trials if trial["settings"] == system.get("settings")), None)
        of = [_finite(trial) for trial in (trials[:1], [chosen] if chosen else [])]
        ended = sum(trial["pruned"] for trial in trials)
        cells = [_number(aucs[0] if aucs else None, 4) for aucs in of]
        cells.append(_number(sum(of[1]) / len(of[1]) if of[1] else None, 4)._replace(chosen=True))
        cells += [TableCell(count(len(of[1]))), TableCell(count(len(trials))), TableCell(count(ended))]
        rows.append(_row(system, [*cells, TableCell(settings(system))]))
    heads = ["system", "as configured", "as chosen", "as chosen, mean", "seeds", "trials", "ended early"]
    return _table([*heads, "what the chosen trial changes"], rows, class_="scroll narrow")


def _finite(trials: Sequence[dict[str, Any]]) -> list[float]:
    """Validation AUCs of a trial's runs."""
    found = (finite(value) for trial in trials for value in trial["val_aucs"])
    return [value for value in found if value is not None]


def settings(system: SystemEntry) -> str:
    """What the search changed in a system's configuration, as a cell of the table."""
    changed = []
    for name, value in (system.get("settings") or {}).items():
        text = f"{value:g}" if isinstance(value, float) else str(value)
        changed.append(f"rates × {text}" if name == "learning_rates" else f"{name.rpartition('.')[2]} {text}")
    return ", ".join(changed) or "nothing"


def title_of(systems: Sequence[SystemEntry], name: str) -> str:
    """The system's title; its name if the comparison does not include it."""
    return next((str(system["title"]) for system in systems if system["name"] == name), name)


def interval(system: SystemEntry, metric: str) -> str:
    """The 95% interval of the difference to the baseline, in points."""
    low, high = (_points(versus(system, metric, end)) for end in ("low", "high"))
    return MISSING if low is None or high is None else f"{decimal(low, 2, '+')} to {decimal(high, 2, '+')}"


def probability(p: float | None) -> str:
    """A p-value with three decimals."""
    return MISSING if p is None else "< .001" if p < 0.001 else decimal(p, 3)


def count(value: Any) -> str:
    """A whole number with separators between thousands."""
    number = finite(value)
    return MISSING if number is None else f"{number:,.0f}"


def _points(difference: float | None) -> float | None:
    return None if difference is None else 100 * difference


def _number(value: float | None, places: int, metric: str = "", sign: str = "-") -> TableCell:
    return TableCell(MISSING if value is None else decimal(value, places, sign), metric)


def _row(system: SystemEntry, cells: list[TableCell]) -> TableRow:
    return TableRow(str(system["name"]), str(system["title"]), family(system), cells)


def _table(
    headings: Sequence[str],
    rows: Sequence[TableRow],
    groups: Sequence[tuple[str, int]] = (),
    class_: str = "scroll",
) -> Markup:
    return render("table.html", **{"class": class_}, headings=headings, rows=rows, groups=groups)
