"""The report of `ccn data check` as one HTML file, filled into `templates/dataset.html`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lightning_ccn.studies.html_report import dataset_figures
from lightning_ccn.studies.html_report.dataset_tables import columns, split_counts, tables
from lightning_ccn.studies.html_report.markup import render
from lightning_ccn.studies.html_report.tables import count

STYLES = ("page.css", "dataset.css")


def write_dataset_page(report: Mapping[str, Any], path: Path) -> None:
    """Writes the report of a dataset folder.

    Args:
        report: What `CheckReport.plain` returns.
        path: Path of the HTML file.
    """
    splits = {split: counts for split, counts in report["splits"].items() if counts["pages"]}
    page = render(
        "dataset.html",
        style=Markup("".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in STYLES)),
        folder=report["folder"],
        heading=_heading(report),
        messages={name: report[name] for name in ("errors", "warnings", "notes")},
        facts={
            "pages": count(sum(counts["pages"] for counts in splits.values())),
            "items shown": count(sum(counts["items"] for counts in splits.values())),
            "clicks": count(sum(counts["clicks"] for counts in splits.values())),
        },
        splits=splits,
        split_counts=split_counts(splits),
        by_day=dataset_figures.by_day(report.get("days") or {}),
        unknown=dataset_figures.unknown(report.get("days") or {}),
        lengths=dataset_figures.lengths(report.get("lengths") or {}),
        columns=columns(report.get("columns") or {}),
        tables=tables(report.get("tables") or {}),
        leaks=report.get("leaks") or [],
    )
    path.write_text(f"{page.strip()}\n", encoding="utf-8")


def _heading(report: Mapping[str, Any]) -> str:
    if report["errors"]:
        return "Not a valid dataset"
    number = len(report["warnings"])
    return "A valid dataset" if not number else f"A valid dataset, with {number} warning{'s' * (number > 1)}"
