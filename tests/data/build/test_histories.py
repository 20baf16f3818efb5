"""Which behaviours a page view gets: those before it, of their types, in order."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from tests.data.build.raw_logs import (
    EVENTS,
    EXPOSURES,
    NOON,
    ROOT,
    Row,
    event,
    exposure,
    pages_of,
    write_rows,
)

ALL_TRAIN = {"validation": "2040-01-01", "test": "2040-01-01"}


def test_behaviours_are_the_last_ones_of_their_types_before_the_page(tmp_path: Path) -> None:
    told = [event("u", f"i{at}", NOON - 100 + at, "order" if at % 2 else "click") for at in range(100)]
    told += [event("u", "late", NOON), event("u", "later", NOON + 1), event("w", "another", NOON - 1)]
    write_rows(tmp_path / "events.parquet", told[::-1])
    [page] = pages_of(
        tmp_path,
        [exposure("v", "u", "a", NOON)],
        events=EVENTS,
        behaviours={"short": {"length": 2, "types": ["order"]}, "long": 5},
        split=ALL_TRAIN,
    )
    assert (page["short_items"], page["short_times"]) == (["i97", "i99"], [NOON - 3, NOON - 1])
    assert page["long_items"] == ["i95", "i96", "i97", "i98", "i99"]


def test_events_of_one_second_are_ordered_by_the_logs_own_number_and_then_by_item(tmp_path: Path) -> None:
    told = [{**event("u", item, NOON - 1), "n": number} for item, number in (("a", 3), ("b", 1), ("d", 2), ("c", 2))]
    write_rows(tmp_path / "events.parquet", told)
    spec: Row = {"behaviours": {"long": 9}, "split": ALL_TRAIN}
    rows = [exposure("v", "u", "a", NOON)]
    [page] = pages_of(tmp_path, rows, events={**EVENTS, "order": "n"}, **spec)
    assert page["long_items"] == ["b", "c", "d", "a"]


def test_parts_of_a_second_order_events_but_the_pages_own_second_is_left_out(tmp_path: Path) -> None:
    told = [{**event("u", item, (NOON * 1000) + ms)} for item, ms in (("c", -1), ("b", -2), ("now", 0), ("so", 499))]
    write_rows(tmp_path / "events.parquet", told)
    keys = {**EVENTS, "time": {"column": "time", "unit": "ms"}}
    [page] = pages_of(
        tmp_path, [exposure("v", "u", "a", NOON + 0.5)], events=keys, behaviours={"long": 9}, split=ALL_TRAIN
    )
    assert page["time"] == NOON and page["long_items"] == ["b", "c"]


@pytest.mark.parametrize("files", ["clicks.csv", "told"])
def test_a_table_of_clicks_needs_no_type_and_the_type_may_be_in_the_names_of_folders(
    tmp_path: Path, files: str
) -> None:
    shown = [exposure("v1", "u", "a", NOON), exposure("v1", "u", "b", NOON)]
    told = [{"user": "u", "item": "b", "time": NOON + 5}]
    write_rows(tmp_path / "clicks.csv", told)
    write_rows(tmp_path / "told" / "type=click" / "part.csv", told)
    write_rows(tmp_path / "told" / "type=view" / "part.csv", [{"user": "u", "item": "a", "time": NOON + 5}])
    events = {"files": files, "user": "user", "item": "item", "time": {"column": "time", "unit": "s"}}
    clicks: Row = {"within": "30s"}
    if files == "told":
        events, clicks = {**events, "type": "type"}, {**clicks, "types": ["click"]}
    [page] = pages_of(
        tmp_path,
        shown,
        exposures={**EXPOSURES, "clicks": clicks},
        events=events,
        behaviours={"long": 5},
        split=ALL_TRAIN,
    )
    assert (page["items"], page["clicks"]) == (["a", "b"], [0, 1])


def test_tables_of_clicks_and_of_views_are_united_as_the_docs_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "clicks.csv", [{"user_id": "u", "item_id": "b", "clicked_at": "2023-11-14 22:13:25"}])
    viewed = datetime.fromtimestamp(NOON - 9, UTC).replace(tzinfo=None)
    write_rows(tmp_path / "views.parquet", [{"visitor": "u", "sku": "a", "viewed_at": viewed}])
    docs = (ROOT / "docs" / "build.md").read_text()
    query = docs[docs.index("COPY (") : docs.index("```", docs.index("COPY ("))]
    monkeypatch.chdir(tmp_path)
    duckdb.connect().execute(query)
    [page] = pages_of(
        tmp_path,
        [exposure("v1", "u", item, NOON) for item in "ab"],
        exposures={**EXPOSURES, "clicks": {"types": ["click"], "within": "30m"}},
        events={"files": "events.parquet", "user": "who", "item": "sku", "type": "what", "time": "at"},
        behaviours={"long": {"length": 50, "types": ["view"]}},
        split=ALL_TRAIN,
    )
    assert (page["items"], page["clicks"], page["long_items"]) == (["a", "b"], [0, 1], ["a"])
