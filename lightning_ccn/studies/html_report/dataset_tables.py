"""The tables of the report of a dataset folder: headings and rows, filled into `templates/dataset.html`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from lightning_ccn.studies.html_report.tables import MISSING, count


class DatasetTable(NamedTuple):
    """A table of texts. The first text of a row names it; `classes` has a CSS class for the name of each row."""

    headings: list[str]
    rows: list[list[str]]
    classes: list[str]


def split_counts(splits: Mapping[str, Mapping[str, Any]]) -> DatasetTable:
    """Counts of each split, as in stats.json."""
    headings = [
        "split",
        "pages",
        "items",
        "items a page",
        "clicks",
        "click rate",
        "with trigger",
        "with short",
        "with long",
    ]
    rows = []
    for split, counts in splits.items():
        of_pages = [percent(counts[f"pages_with_{name}"], counts["pages"]) for name in ("trigger", "short", "long")]
        a_page = f"{counts['items'] / max(counts['pages'], 1):.1f}"
        clicks = [count(counts["clicks"]), percent(counts["clicks"], counts["items"])]
        times = [_day(counts[name]) for name in ("first_time", "last_time")]
        rows.append([split, count(counts["pages"]), count(counts["items"]), a_page, *clicks, *of_pages, *times])
    return DatasetTable([*headings, "first day", "last day"], rows, list(splits))


def columns(found: Mapping[str, Mapping[str, Any]]) -> DatasetTable:
    """Shares of unknown ids of each column of ids, by split, and of ids that only test pages have."""
    splits = list(dict.fromkeys(split for column in found.values() for split in column["splits"]))
    rows = []
    for name, column in found.items():
        shares = []
        for split in splits:
            counts = column["splits"].get(split, {"unknown": 0, "ids": 0})
            shares.append(percent(counts["unknown"], counts["ids"]))
        test = column["splits"].get("test", {"new": 0, "ids": 0})
        new = percent(test["new"], test["ids"]) if len(column["splits"]) > 1 else MISSING
        rows.append([name, column["table"], *shares, new])
    return DatasetTable(["column", "table", *(f"unknown in {split}" for split in splits), "new in test"], rows, [])


def tables(found: Mapping[str, Mapping[str, int]]) -> DatasetTable:
    """How many rows of each table are used."""
    rows = [
        [name, count(rows), count(used), percent(used, rows), count(rows - used), count(only)]
        for name, (rows, used, only) in ((name, table.values()) for name, table in found.items())
    ]
    return DatasetTable(["table", "rows", "used", "share", "never used", "only in test"], rows, [])


def percent(part: float, whole: float) -> str:
    """A share in percent; a dash for a share of nothing."""
    return f"{100 * part / whole:.1f}%" if whole else MISSING


def _day(seconds: int | None) -> str:
    return MISSING if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
