"""A log that reads without a complaint and means something else: it is refused, counted, or warned of."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lightning_ccn.errors import DataError
from tests.data.build.raw_logs import (
    EVENTS,
    EXPOSURES,
    NOON,
    Row,
    build,
    event,
    exposure,
    four_views,
    read_pages,
    write_rows,
    write_spec,
)

ALL_TRAIN = {"validation": "2040-01-01", "test": "2040-01-01"}
SHOWN = [exposure("v", "u", "a", NOON), exposure("v", "u", "b", NOON)]
NO_TYPE = {name: value for name, value in EVENTS.items() if name != "type"}


def build_of(folder: Path, impressions: list[Row] = SHOWN, **spec: Any) -> Any:
    write_rows(folder / "exposures.parquet", impressions)
    return build(write_spec(folder, **{"split": ALL_TRAIN, **spec}))


@pytest.mark.parametrize("named", [True, False])
def test_events_of_several_types_give_no_label_that_names_none(tmp_path: Path, named: bool) -> None:
    told = [event("u", "a", NOON + 5, kind) for kind in ("view", "view", "click")]
    write_rows(tmp_path / "events.parquet", told)
    spec: Row = {"events": EVENTS if named else NO_TYPE, "exposures": {**EXPOSURES, "clicks": {"within": "30m"}}}
    key = "" if named else "events.type: type, and "
    message = (
        "exposures.clicks: within alone takes events of all types, and column type of the events has view, click; "
        rf"write {key}types: \[view\] beside within, with each type that counts"
    )
    with pytest.raises(DataError, match=message):
        build_of(tmp_path, **spec)
    write_rows(tmp_path / "events.parquet", told[2:])  # of one type
    build_of(tmp_path, **spec)
    assert read_pages(tmp_path / "out")[0]["clicks"] == [1, 0]


def test_a_column_of_more_values_than_there_are_types_is_none_of_types(tmp_path: Path) -> None:
    write_rows(tmp_path / "events.parquet", [event("u", "a", NOON + 5, f"e{at}") for at in range(21)])
    build_of(tmp_path, events=NO_TYPE, exposures={**EXPOSURES, "clicks": {"within": "30m"}})
    assert read_pages(tmp_path / "out")[0]["clicks"] == [1, 0]


def test_events_of_items_that_are_never_shown_are_warned_of(tmp_path: Path) -> None:
    write_rows(tmp_path / "events.parquet", [event("u", "sku-a", NOON - 5)])
    report = build_of(tmp_path, events=EVENTS, behaviours={"long": 5})
    assert report.warnings == [
        "no impression has an item of the events, such as 'sku-a'; the impressions have items such as 'a': are ids "
        "written alike in both?"
    ]
    assert f"warning: {report.warnings[0]}" in str(report)
    write_rows(tmp_path / "events.parquet", [event("u", item, NOON - 5) for item in ("sku-a", "a")])
    assert build(tmp_path / "log.yaml", "again").warnings == []


def test_a_position_that_is_no_number_is_counted_and_a_column_of_them_is_refused(tmp_path: Path) -> None:
    rows = [exposure("v", "u", f"i{at}", NOON, slot=slot) for at, slot in enumerate(("1", "top", ""))]
    report = build_of(tmp_path, rows)
    assert report.counts["numbers"]["dropped"] == {"slot: no number, so it counts as unknown": 1}
    with pytest.raises(
        DataError, match=r"exposures.position: none of the 1 values of 'slot' is a number, such as 'top'"
    ):
        build_of(tmp_path / "none", rows[1:])


def test_an_order_of_events_that_is_no_number_is_counted(tmp_path: Path) -> None:
    write_rows(tmp_path / "events.parquet", [{**event("u", "a", NOON - 5), "n": n} for n in ("1", "x")])
    report = build_of(tmp_path, events={**EVENTS, "order": "n"}, behaviours={"long": 5})
    assert report.counts["numbers"]["dropped"] == {"n: no number, so it counts as unknown": 1}


def test_words_for_no_id_and_ids_in_two_spellings_are_warned_of(tmp_path: Path) -> None:
    rows = [exposure(f"v{at}", "u", item, NOON + at) for at, item in enumerate(("7", "7.0", " a", "a", "NULL", "b.0"))]
    report = build_of(tmp_path, [*rows, exposure("nan", "w", "a", NOON), exposure("v9", "\\N", "b", NOON)])
    none, two = "counts as an id like any other; if it says that there is none, leave the field empty", "count as two"
    starts = [
        f"page views, column view: 'nan' {none}",
        f"table user: '\\\\N' {none}",
        f"table item: 'NULL' {none}",
        f"ids of table item: ' a' and 'a' {two}",
    ]
    assert [found.startswith(start) for found, start in zip(report.warnings, starts, strict=True)] == [True] * 4
    report = build_of(tmp_path / "float", rows[:2])
    assert report.warnings == [
        "ids of table item: '7.0' and '7' count as two; if they are one, write them alike in all tables"
    ]


def test_an_item_that_the_catalogue_spells_in_another_way_is_warned_of(tmp_path: Path) -> None:
    write_rows(tmp_path / "items.csv", [{"id": "1.0", "topic": "art"}, {"id": "2", "topic": "art"}])
    rows = [exposure("v", "u", item, NOON) for item in (1, 2)]
    report = build_of(tmp_path, rows, items={"files": "items.csv", "item": "id", "attributes": ["topic"]})
    assert "ids of table item: '1.0' and '1' count as two" in report.warnings[0]


def test_clicked_ids_that_are_none_of_the_rows_items_are_warned_of_or_refused(tmp_path: Path) -> None:
    keys = {name: value for name, value in EXPOSURES.items() if name != "position"} | {"clicks": {"ids": "clicked"}}
    rows = [exposure("v", "u", ["a", "b"], NOON, ["a ", "b", "b"]), exposure("w", "u", ["a", "b"], NOON, None)]
    report = build_of(tmp_path, rows, exposures=keys)
    assert report.warnings == [
        "column clicked: at least 1 of 2 ids are none of the items on their row, and label nothing"
    ]
    for ids, message in (
        (["A"], "column clicked: none of its 1 ids is among the items of its row; write them as those of column item"),
        ([7], "column clicked: has int, but the items of column item are text; write both as one type"),
    ):
        with pytest.raises(DataError, match=message):
            build_of(tmp_path / str(ids[0]), [exposure("v", "u", ["a", "b"], NOON, ids)], exposures=keys)


def test_profiles_that_begin_in_another_unit_are_refused(tmp_path: Path) -> None:
    users = {"files": "users.parquet", "user": "id", "features": ["city"]}
    for folder, factor, message in (
        (
            "too small",
            1,
            r"column from: all rows begin in January 1970, .*; name the unit of its numbers, as in {column",
        ),
        ("too large", 1_000_000, "no profile is left of 2: no time since when it holds: for example user u"),
    ):
        rows = [{"id": "u", "city": "Rome", "from": factor * (NOON - at)} for at in range(2)]
        write_rows(tmp_path / folder / "users.parquet", rows)
        with pytest.raises(DataError, match=message):
            build_of(tmp_path / folder, users={**users, "since": {"column": "from", "unit": "ms"}})
    write_rows(tmp_path / "always" / "users.parquet", [{"id": "u", "city": "Rome", "from": 0}])
    build_of(tmp_path / "always", users={**users, "since": {"column": "from", "unit": "ms"}})
    assert read_pages(tmp_path / "always" / "out")[0]["city"] == "Rome"


@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_a_quote_that_swallows_more_lines_than_can_be_counted_is_refused(tmp_path: Path, ending: str) -> None:
    rows = [{**exposure(f"v{at // 4}", "u", f"i{at % 4}", NOON + at // 4), "note": "-" * 30} for at in range(400)]
    rows[100]["note"] = '"5 inch'
    header, *lines = [",".join(map(str, row)) for row in (rows[0], *(row.values() for row in rows))]
    text = "\n".join([header, *lines]).encode() + b"\n"
    (tmp_path / f"exposures{ending}").write_bytes(gzip.compress(text) if ending.endswith("gz") else text)
    keys = {**EXPOSURES, "files": f"exposures{ending}", "time": {"column": "time", "unit": "s"}}
    with pytest.raises(DataError, match=rf"exposures{ending}: row 102: a quote begins here, .*; close it, write two"):
        build(write_spec(tmp_path, exposures=keys, split=ALL_TRAIN))


@pytest.mark.parametrize("odd", [2.0**60, 2.5])
@pytest.mark.parametrize("column", ["entry", "user"])
def test_floats_that_are_no_ids_are_refused_and_no_number_is_no_id(tmp_path: Path, column: str, odd: float) -> None:
    rows = [{**row, "user": 1.0, "entry": 7.0} for row in SHOWN]
    with pytest.raises(DataError, match=rf"exposures.parquet: column {column}: .* is no id for exposures\."):
        build_of(tmp_path, [rows[0], {**rows[1], column: odd}])
    report = build_of(tmp_path, [*rows, {**rows[0], "view": "w", "entry": float("nan")}])
    assert report.counts["impressions"]["kept"] == {"total": 3}
    assert [page["trigger"] for page in read_pages(tmp_path / "out")] == ["7", None]


def test_a_page_has_the_trigger_of_those_of_its_impressions_that_have_one(tmp_path: Path) -> None:
    rows = [
        exposure("v", "u", item, NOON, entry=entry) for item, entry in zip("abcd", (None, "x", None, "y"), strict=True)
    ]
    report = build_of(tmp_path, rows)
    [page] = read_pages(tmp_path / "out")
    assert page["trigger"] == "x" and page["items"] == ["a", "b", "c"]
    assert report.counts["impressions"]["dropped"] == {"of another trigger than the first impression of its page": 1}


def test_a_log_of_which_no_page_view_is_left_tells_why(tmp_path: Path) -> None:
    message = r"no page view is left; the impressions were dropped: on a page view of more than 1 items \(2\); change"
    with pytest.raises(DataError, match=message):
        build_of(tmp_path, exposures={**EXPOSURES, "most_items": 1})


def test_numbers_that_are_infinite_or_too_large_to_be_one_are_counted(tmp_path: Path) -> None:
    prices = [1.5, float("inf"), 1.7e308, float("nan"), None]
    rows = [{**exposure("v", "u", f"i{at}", NOON), "price": price} for at, price in enumerate(prices)]
    report = build_of(tmp_path, rows, exposures={**EXPOSURES, "numbers": ["price"]})
    assert report.counts["numbers"]["dropped"] == {"price: no number, so it counts as unknown": 2}


@pytest.mark.parametrize("own", ["s*", "br[a]cket"])
@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_the_folder_of_a_specification_may_be_called_like_a_pattern(tmp_path: Path, own: str, ending: str) -> None:
    for folder in (own, "sx", "bracket"):
        write_rows(tmp_path / folder / f"exposures{ending}", [{**row, "user": folder} for row in four_views()])
    keys = {**EXPOSURES, "files": f"exposures{ending}", "time": {"column": "time", "unit": "s"}}
    report = build(write_spec(tmp_path / own, exposures=keys))
    assert report.counts["impressions"]["read"] == {"total": 8} and not report.faults
    assert {page["user"] for page in read_pages(tmp_path / own / "out")} == {own}


@pytest.mark.parametrize(("kind", "said"), [(pa.int64(), "int"), (pa.timestamp("s", "UTC"), "timestamp with a zone")])
def test_a_zone_of_times_that_need_none_is_refused(tmp_path: Path, kind: pa.DataType, said: str) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views(), {"time": kind})
    keys = {**EXPOSURES, "time": {"column": "time", "zone": "Europe/Copenhagen"}}
    message = f"column time: is {said}, but exposures.time.zone is for dates without one; leave it out"
    with pytest.raises(DataError, match=message):
        build(write_spec(tmp_path, exposures=keys))


def test_an_extension_that_shares_no_user_and_no_item_is_warned_of(tmp_path: Path) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    spec = write_spec(tmp_path)
    assert build(spec, "old").warnings == []
    others = [{**row, "user": "x" + row["user"], "item": "x" + row["item"], "entry": "y"} for row in four_views()]
    write_rows(tmp_path / "exposures.parquet", others)
    [warning] = build(spec, "new", extends=tmp_path / "old").warnings
    assert "none of its ids in user and item is in this log" in warning
