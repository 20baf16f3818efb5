"""Requests to try a package with: the first pages of a split, in the log's own ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lightning_ccn.data import page_row
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.parquet import PageRows
from lightning_ccn.export.log_ids import LogIds
from lightning_ccn.export.measure import MeasuredPages, of_page
from lightning_ccn.serving.manifest import Manifest
from lightning_ccn.serving.package import EXAMPLES

MOST = 5  # examples


def write_examples(folder: Path, pages: MeasuredPages, dataset: Dataset, manifest: Manifest) -> None:
    """Writes examples.json: the body of several requests. Items whose rows are hashes have no ids, and no examples."""
    ids = LogIds(dataset)
    if not ids.has(page_row.ITEM):
        return
    found = [_request(rows, page, ids, manifest) for rows, page in pages.first(MOST)]
    (folder / EXAMPLES).write_text(json.dumps({"requests": found}, ensure_ascii=False) + "\n")


def _request(rows: PageRows, page: int, ids: LogIds, manifest: Manifest) -> dict[str, Any]:
    def of(table: str, column: str) -> list[Any]:
        return ids.of(table, of_page(rows[column], page)) if column in rows else []

    def seconds(column: str) -> list[int]:
        return [int(second) for second in of_page(rows[column], page)] if column in rows else []

    user = {f.name: of(f.table, f.name) for f in manifest.user}
    times: dict[str, Any] = {}
    if manifest.reads_gaps:
        times["time"] = seconds(page_row.TIME)[0]
        times["short_times"] = seconds(page_row.SHORT_TIMES)[-manifest.short_length :]
        times["long_times"] = seconds(page_row.LONG_TIMES)
    return {
        "user": {f.name: user[f.name] if f.many else user[f.name][0] for f in manifest.user},
        "trigger": of(page_row.ITEM, page_row.TRIGGER)[0],
        "short": of(page_row.ITEM, page_row.SHORT_ITEMS)[-manifest.short_length :],
        "long": of(page_row.ITEM, page_row.LONG_ITEMS),
        **times,
        "items": of(page_row.ITEM, page_row.ITEMS),
        "numbers": {n.name: _numbers(of_page(rows[n.name], page)) for n in manifest.numbers},
        "page_numbers": {n.name: _numbers(of_page(rows[n.name], page))[0] for n in manifest.page_numbers},
    }


def _numbers(values: np.ndarray) -> list[float | None]:
    """Numbers for JSON, which has no NaN."""
    return [float(value) if np.isfinite(value) else None for value in values]
