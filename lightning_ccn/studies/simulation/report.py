"""The terminal tables of a simulation: the paper's Tables 3 and 4, with the paper's numbers below ours."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from lightning_ccn.studies.simulation.lift import METRICS, SHARES

# Lifts of the paper's online tests on Taobao, by system; the paper does not name the baseline of these tables.
PAPER_LIFT: dict[str, dict[str, dict[str, float]]] = {
    "Table 3": {
        "dihn": {"ctr": -0.073, "clicks_per_user": -0.093, "cvr": -0.015, "orders_per_user": -0.031},
        "dian": {"ctr": -0.056, "clicks_per_user": -0.060, "cvr": -0.009, "orders_per_user": -0.015},
        "ccn": {"ctr": 0.123, "clicks_per_user": 0.074, "cvr": 0.009, "orders_per_user": 0.127},
    },
    "Table 4": {
        "tan": {"ctr": 0.0221, "cvr": 0.0637, "visit_purchase_rate": 0.0885},
        "ccn": {"ctr": 0.1748, "cvr": 0.1006, "visit_purchase_rate": 0.2938},
    },
}
NOTE = (
    "A visit is the paper's daily user view. CTR: share of visits with a click. CVR: share of these with a purchase. "
    "Intervals cover the draw of users and visits; also training runs, if the system and {baseline} have several each."
)
COLUMNS = {
    "Table 3": ("ctr", "clicks_per_user", "cvr", "orders_per_user"),
    "Table 4": ("ctr", "cvr", "visit_purchase_rate"),
}
DIGITS = {"Table 3": 1, "Table 4": 2}  # decimals that the paper prints


def tables(report: dict[str, Any]) -> list[Table]:
    """The tables.

    Args:
        report: Content of simulate.json.
    """
    return [*(_table(report, name) for name in COLUMNS), _shares(report)]


def _shares(report: dict[str, Any]) -> Table:
    """How much each system shows of the trigger's category."""
    table = Table("system", *(METRICS[name].title for name in SHARES), title="Items of the trigger's category")
    rows = [(system["title"], system["values"]) for system in report["systems"]]
    for title, values in [*rows, ("In the log's test split", report["log"])]:
        shares = [values[name] for name in SHARES]
        table.add_row(title, *("undefined" if share is None else f"{share:.1%}" for share in shares))
    return table


def _table(report: dict[str, Any], name: str) -> Table:
    promotion = "an unseen promotion" if report["unseen"] else "the promotion of training"
    title = (
        f"As the paper's {name}: lift over {report['baseline']['title']} in {promotion}, "
        f"{report['visits']:,} visits of {report['users']:,} users, 95% intervals"
    )
    table = Table("system", "runs", *(METRICS[metric].title for metric in COLUMNS[name]), title=title)
    table.caption = NOTE.format(baseline=report["baseline"]["title"])
    for system in report["systems"]:
        runs = str(len(system["runs"])) if system["trained"] else ""
        cells = [_cell(system, metric, name) for metric in COLUMNS[name]]
        table.add_row(system["title"], runs, *cells)
    return table


def _cell(system: dict[str, Any], metric: str, table: str) -> str:
    """Our lift with its interval, and the paper's lift; for the baseline the value itself."""
    if system["lift"] is None:
        value = system["values"][metric]
        return "undefined" if value is None else f"{value:.4f}"
    lift, paper, digits = system["lift"][metric], system["paper_lift"].get(table, {}).get(metric), DIGITS[table]
    ours = "undefined"
    if lift is not None:
        rate, low, high = (_percent(lift[name], digits) for name in ("lift", "low", "high"))
        ours = f"{rate} [{low}, {high}]"
    return ours if paper is None else f"{ours}\npaper {_percent(paper, digits)}"


def _percent(rate: float, digits: int) -> str:
    return f"{100 * rate:+.{digits}f}%"
