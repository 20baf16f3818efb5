"""The terminal table of a comparison with invented numbers."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from lightning_ccn.studies.comparison.table import table, table_by_value
from tests.studies.html_report.example import comparison, left_out


def test_a_new_metric_gets_a_column_without_code() -> None:
    content = comparison(systems=("sim", "ccn"))
    content["metrics"] = {**content["metrics"], "brier": "Brier score"}
    for system in content["systems"]:
        system["summary"]["brier"] = {"mean": 0.1234, "se": 0.0002, "runs": 3}
    shown = table(content)
    headings = [str(column.header).replace("\n", " ") for column in shown.columns]
    assert "Brier score" in headings and "page AUC" in headings
    assert "intent AUC" not in headings  # neither system estimates an intent
    console = Console(width=240, record=True)
    console.print(shown)
    assert "0.1234 ±.0002" in console.export_text()


def printed(shown: Table) -> list[str]:
    console = Console(width=400, record=True)
    console.print(shown)
    return console.export_text().splitlines()


def test_a_difference_has_its_interval() -> None:
    content = comparison(systems=("sim", "ccn"))
    versus = content["systems"][1]["versus"]["auc"]
    sim, ccn = (next(line for line in printed(table(content)) if f"│ {title} " in line) for title in ("SIM", "CCN"))
    assert f"{versus['low']:+.4f} to {versus['high']:+.4f}" in ccn
    assert " to " not in sim


def test_every_left_out_value_has_a_row_and_so_has_their_mean() -> None:
    content = left_out(3)
    lines = printed(table_by_value(content))
    for at, entry in enumerate(content["left_out"]["values"]):
        (line,) = (line for line in lines if f"place {at}" in line)
        ccn = entry["systems"][2]
        assert f"{1000 + at:,}" in line and "0.200" in line
        assert f"{ccn['summary']['auc']['mean']:.4f} {ccn['versus']['auc']['difference']:+.4f}" in line
    versus, mean = content["systems"][2]["versus"]["auc"], content["systems"][2]["summary"]["auc"]["mean"]
    (of_mean,) = (line for line in lines if "│ mean" in line)
    (of_interval,) = (line for line in lines if "95% interval" in line)
    assert f"{mean:.4f} {versus['difference']:+.4f}" in of_mean
    assert f"{versus['low']:+.4f} to {versus['high']:+.4f}" in of_interval
    assert "mean over 3 values of scenario, each left out of training" in " ".join(printed(table(content)))
