"""The terminal table of a comparison with invented numbers."""

from __future__ import annotations

from rich.console import Console

from lightning_ccn.studies.comparison.table import table
from tests.studies.html_report.example import comparison


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
