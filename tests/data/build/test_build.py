"""What `ccn data build` makes of a log."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.item_vectors import open_vectors
from lightning_ccn.errors import DataError
from tests.data.build.raw_logs import (
    EVENTS,
    EXPOSURES,
    NOON,
    ROOT,
    Row,
    build,
    contents,
    event,
    exposure,
    four_views,
    pages_of,
    read_pages,
    write_rows,
    write_spec,
)

DAY = 86_400
ALL_TRAIN = {"validation": "2040-01-01", "test": "2040-01-01"}


def test_a_log_without_anything_but_impressions_is_a_dataset(tmp_path: Path) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    report = build(write_spec(tmp_path))
    pages = read_pages(tmp_path / "out")
    assert [(page["split"], page["user"], page["trigger"]) for page in pages] == [
        ("train", "u0", "i0"),
        ("train", "u1", "i1"),
        ("validation", "u0", "i2"),
        ("test", "u1", "i3"),
    ]
    assert [(page["items"], page["clicks"], page["positions"]) for page in pages[:2]] == [
        (["i0", "i1"], [1, 0], [0, 1]),
        (["i0", "i1"], [0, 1], [0, 1]),
    ]
    assert report.faults == [] and report.splits["train"].clicks == 2


@pytest.mark.parametrize(
    ("page", "views"),
    [
        ("view", [["a", "b"], ["c"], ["d"]]),
        (["user", "entry", "session"], [["a", "b", "c"], ["d"]]),
        ({"columns": ["user", "entry"], "gap": "1m"}, [["a", "b"], ["c"], ["d"]]),
        ({"columns": ["user"], "gap": "2m"}, [["a", "b", "c"], ["d"]]),
        (["user", "asked"], [["a", "b", "c"], ["d"]]),
    ],
    ids=["id", "session", "gap", "long gap", "time"],
)
def test_impressions_become_page_views_by_id_or_session_or_gap(
    tmp_path: Path, page: Any, views: list[list[str]]
) -> None:
    rows = [
        {
            **exposure(view, "u", item, NOON + after),
            "session": session,
            "asked": datetime.fromtimestamp(session, UTC),
        }
        for view, item, after, session in (
            ("v1", "a", 0, 1),
            ("v1", "b", 60, 1),
            ("v2", "c", 121, 1),
            ("v3", "d", 900, 2),
        )
    ]
    found = pages_of(tmp_path, rows, exposures={**EXPOSURES, "page": page}, split=ALL_TRAIN)
    assert [row["items"] for row in found] == views


def test_impressions_of_one_time_stay_on_one_side_of_a_gap(tmp_path: Path) -> None:
    rows = [exposure("v", "u", item, NOON + after) for item, after in (("a", 0), ("c", 100), ("b", 100), ("d", 100))]
    keys = {**EXPOSURES, "page": {"columns": ["user"], "gap": "1m"}}
    assert [row["items"] for row in pages_of(tmp_path, rows, exposures=keys, split=ALL_TRAIN)] == [
        ["a"],
        ["b", "c", "d"],
    ]


def test_one_row_a_page_with_lists_gives_the_same_folder(tmp_path: Path) -> None:
    flat = four_views()
    write_rows(tmp_path / "flat" / "exposures.parquet", flat)
    build(write_spec(tmp_path / "flat", exposures={**EXPOSURES, "position": {"column": "slot", "first": 0}}))
    views = [flat[at : at + 2] for at in range(0, len(flat), 2)]
    lists = [{**two[0], **{name: [row[name] for row in two] for name in ("item", "clicked")}} for two in views]
    write_rows(tmp_path / "lists" / "exposures.parquet", lists)
    keys = {name: value for name, value in EXPOSURES.items() if name != "position"}
    build(write_spec(tmp_path / "lists", exposures=keys))
    assert contents(tmp_path / "lists" / "out") == contents(tmp_path / "flat" / "out")
    ids = [{**two[0], "item": [row["item"] for row in two], "clicked": [row["item"] for row in two if row["clicked"]]}
           for two in views]  # fmt: skip
    write_rows(tmp_path / "ids" / "exposures.parquet", ids)
    build(write_spec(tmp_path / "ids", exposures={**keys, "clicks": {"ids": "clicked"}}))
    assert contents(tmp_path / "ids" / "out") == contents(tmp_path / "flat" / "out")


def test_a_label_goes_to_the_latest_impression_before_the_event_and_within_its_window(tmp_path: Path) -> None:
    shown = [exposure("v1", "u", "a", NOON), exposure("v2", "u", "a", NOON + 100), exposure("v2", "u", "b", NOON + 100),
             exposure("v3", "w", "a", NOON + 100), exposure("v4", "u", "a", NOON + 200)]  # fmt: skip
    shown.append(exposure("v5", "x", "a", NOON))
    told = [event("u", "a", NOON + 130), event("u", "b", NOON + 131), event("w", "a", NOON + 99)]
    told += [event("u", "b", NOON - 9), event("u", "a", NOON + 200, "view"), event("u", "b", NOON + 105, "order")]
    told += [event("x", "a", NOON)]  # a log of whole seconds has both at one time
    write_rows(tmp_path / "events.parquet", told)
    keys = {
        **EXPOSURES,
        "clicks": {"types": ["click"], "within": "30s"},
        "purchases": {"types": ["order"], "within": "1d"},
    }
    found = pages_of(tmp_path, shown, exposures=keys, events=EVENTS, split=ALL_TRAIN)
    labels = {(page["time"] - NOON, page["user"]): (page["items"], page["clicks"], page["purchases"]) for page in found}
    assert labels == {
        (0, "u"): (["a"], [0], [0]),
        (0, "x"): (["a"], [1], [0]),
        (100, "u"): (["a", "b"], [1, 0], [0, 1]),  # b was clicked a second too late
        (100, "w"): (["a"], [0], [0]),
        (200, "u"): (["a"], [0], [0]),
    }


def test_a_label_never_moves_to_an_earlier_page_than_the_one_that_was_clicked(tmp_path: Path) -> None:
    shown = [
        # again on its page, after another page had shown it
        *(exposure("v1", "u", "a", NOON), exposure("v2", "u", "a", NOON + 10), exposure("v1", "u", "a", NOON + 20)),
        exposure("v3", "w", "b", NOON),  # in train, and then on a page in the gap before validation
        exposure("v4", "w", "b", NOON + 100),
        exposure("v5", "w", "b", NOON + 200),
        exposure("v6", "x", "c", NOON),  # of x, and then on a page of more than two items
        *(exposure("v7", "x", item, NOON + 10) for item in "cde"),
    ]
    told = [event("u", "a", NOON + 21), event("w", "b", NOON + 101), event("x", "c", NOON + 11)]
    write_rows(tmp_path / "events.parquet", told)
    keys = {**EXPOSURES, "clicks": {"types": ["click"], "within": "1h"}, "most_items": 2}
    dates = {"validation": "2023-11-14T22:16:40Z", "test": "2040-01-01", "gap": "100s"}
    write_rows(tmp_path / "exposures.parquet", shown)
    report = build(write_spec(tmp_path, exposures=keys, events=EVENTS, split=dates))
    clicks = {(page["user"], page["time"] - NOON): page["clicks"] for page in read_pages(tmp_path / "out")}
    assert clicks == {("u", 0): [1], ("u", 10): [0], ("w", 0): [0], ("w", 200): [0], ("x", 0): [0]}
    assert report.counts["clicks"]["dropped"]["of an impression that is dropped"] == 2


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


def test_a_page_gets_the_profile_that_held_at_its_time(tmp_path: Path) -> None:
    rows = [exposure(f"v{at}", "u", "a", NOON + at) for at in (0, 10, 20, 30)]
    profile = [
        {"id": "u", "city": city, "tags": tags, "from": NOON + at}
        for city, tags, at in (("Rome", "x|y", 10), ("Oslo", "y", 21), ("never", "z", 99))
    ]
    write_rows(tmp_path / "users.csv", profile)
    users = {
        "files": "users.csv",
        "user": "id",
        "since": {"column": "from", "unit": "s"},
        "features": ["city", {"column": "tags", "separator": "|"}],
    }
    found = pages_of(tmp_path, rows, users=users, split=ALL_TRAIN)
    assert [(page["city"], page["tags"]) for page in found] == [
        (None, []), ("Rome", ["x", "y"]), ("Rome", ["x", "y"]), ("Oslo", ["y"]),
    ]  # fmt: skip


def test_a_profile_that_has_ended_is_unknown(tmp_path: Path) -> None:
    rows = [exposure(f"v{at}", "u", "a", NOON + at) for at in (0, 10, 19, 20, 30, 99)]
    profile = [{"id": "u", "city": city, "tags": tags, "band": band, "from": start, "to": end}
               for city, tags, band, start, end in (("Rome", "x", 1.5, NOON + 10, NOON + 20),
                                                    ("Oslo", "y", 2.5, NOON + 30, 253_402_300_799))]  # fmt: skip
    write_rows(tmp_path / "users.parquet", profile)
    users = {
        "files": "users.parquet",
        "user": "id",
        "since": "from",
        "until": "to",
        "features": ["city", {"column": "tags", "separator": "|"}],
        "numbers": ["band"],
    }
    found = pages_of(tmp_path, rows, users=users, split=ALL_TRAIN)
    none: tuple[Any, ...] = (None, [], "nan")
    rome, oslo = ("Rome", ["x"], "1.5"), ("Oslo", ["y"], "2.5")
    assert [(page["city"], page["tags"], str(page["band"])) for page in found] == [none, rome, rome, none, oslo, oslo]
    write_rows(tmp_path / "again" / "users.parquet", [{**row, "to": 1000 * (NOON + 20)} for row in profile])
    message = f"column to: users.until names it, but no row ends: {1000 * (NOON + 20)} is no time in seconds or as a"
    with pytest.raises(DataError, match=message):
        pages_of(tmp_path / "again", rows, users=users, split=ALL_TRAIN)


def test_a_profile_that_ends_before_it_begins_is_dropped_and_counted(tmp_path: Path) -> None:
    write_rows(tmp_path / "exposures.parquet", [exposure("v0", "u", "a", NOON)])
    times = (("Rome", NOON - 20, NOON + 5), ("Oslo", NOON - 10, NOON - 15))
    profile = [{"id": "u", "city": city, "from": start, "to": end} for city, start, end in times]
    write_rows(tmp_path / "users.parquet", profile)
    users = {"files": "users.parquet", "user": "id", "since": "from", "until": "to", "features": ["city"]}
    report = build(write_spec(tmp_path, users=users, split=ALL_TRAIN))
    assert [page["city"] for page in read_pages(tmp_path / "out")] == ["Rome"]
    assert report.counts["users"]["dropped"] == {"it ends before it begins": 1}


@pytest.mark.parametrize("times", [{}, {"unit": "s"}], ids=["dates", "numbers"])
def test_a_profile_whose_end_is_no_time_is_dropped_and_one_without_an_end_holds_on(
    tmp_path: Path, times: dict[str, str]
) -> None:
    write_rows(tmp_path / "exposures.parquet", [exposure(f"v{at}", f"u{at}", "a", NOON) for at in range(5)])
    begin, end, never = (NOON - 9, NOON + 9, 253_402_214_400) if times else ("2023-11-01", "2024-01-01", "9999-12-31")
    ends = (end, "", never, "soon", 1000 * NOON)  # the last one is in milliseconds
    profile = [{"id": f"u{at}", "city": "Rome", "from": begin, "to": each} for at, each in enumerate(ends)]
    write_rows(tmp_path / "users.csv", profile)
    users = {"files": "users.csv", "user": "id", "since": {"column": "from", **times}, "features": ["city"]}
    report = build(write_spec(tmp_path, users={**users, "until": {"column": "to", **times}}, split=ALL_TRAIN))
    assert {page["user"]: page["city"] for page in read_pages(tmp_path / "out")} == {
        "u0": "Rome", "u1": "Rome", "u2": "Rome", "u3": None, "u4": None,
    }  # fmt: skip
    assert report.counts["users"]["dropped"] == {"its end is no time": 2}
    assert report.examples["users"] == {"its end is no time": "user u3, end soon"}


def test_a_missing_end_may_be_a_float_that_is_no_number(tmp_path: Path) -> None:
    profile = [{"id": "u", "city": "Rome", "from": NOON - 9, "to": float("nan")},
               {"id": "w", "city": "Oslo", "from": NOON - 9, "to": NOON + 9.0}]  # fmt: skip
    write_rows(tmp_path / "users.parquet", profile)
    users = {"files": "users.parquet", "user": "id", "since": "from", "until": "to", "features": ["city"]}
    rows = [exposure(f"v{user}", user, "a", NOON) for user in "uw"]
    assert [page["city"] for page in pages_of(tmp_path, rows, users=users, split=ALL_TRAIN)] == ["Rome", "Oslo"]


def test_a_time_with_a_zone_of_its_own_is_not_of_the_columns_zone(tmp_path: Path) -> None:
    times = (
        "2023-11-14 22:13:20",
        "2023-11-14T22:13:20+01:00",
        "2023-11-14 22:13:20Z",
        "2023-11-14",
        "2023-11-14 09:00",
    )
    rows = [exposure(f"v{at}", "u", f"i{at}", time) for at, time in enumerate(times)]
    keys = {**EXPOSURES, "time": {"column": "time", "zone": "America/New_York"}}
    found = {page["items"][0]: page["time"] for page in pages_of(tmp_path, rows, exposures=keys, split=ALL_TRAIN)}
    new_york, midnight = NOON + 5 * 3600, 1_699_938_000
    assert found == {"i0": new_york, "i1": NOON - 3600, "i2": NOON, "i3": midnight, "i4": midnight + 9 * 3600}


def test_labels_that_pandas_wrote_as_floats_are_labels(tmp_path: Path) -> None:
    rows = [exposure("v", "u", f"i{at}", NOON, label) for at, label in enumerate(("1.0", "0.0", "True", "false"))]
    write_rows(tmp_path / "exposures.csv", rows)
    keys = {**EXPOSURES, "files": "exposures.csv", "time": {"column": "time", "unit": "s"}}
    build(write_spec(tmp_path, exposures=keys, split=ALL_TRAIN))
    assert read_pages(tmp_path / "out")[0]["clicks"] == [1, 0, 1, 0]


def test_items_bring_attributes_and_numbers_and_features_may_share_a_table(tmp_path: Path) -> None:
    items: list[Row] = [{"id": "i0", "topic": "sport", "price": 2.5}, {"id": "i1", "topic": "art", "price": None},
                        {"id": "unused", "topic": "none", "price": 1.0}]  # fmt: skip
    write_rows(tmp_path / "items.parquet", items)
    write_rows(tmp_path / "users.parquet", [{"id": "u0", "likes": ["art", "sport"]}, {"id": "u1", "likes": None}])
    found = pages_of(
        tmp_path,
        [{**row, "device": "phone", "age": 1.5} for row in four_views()],
        exposures={**EXPOSURES, "numbers": ["age"], "features": ["device"]},
        users={"files": "users.parquet", "user": "id", "features": [{"column": "likes", "table": "topic"}]},
        items={
            "files": "items.parquet",
            "item": "id",
            "attributes": ["topic"],
            "category": "topic",
            "same_as_trigger": ["topic"],
            "numbers": ["price"],
        },
    )
    assert [(page["device"], page["likes"]) for page in found[:2]] == [("phone", ["art", "sport"]), ("phone", [])]
    assert (
        found[0]["age"] == [1.5, 1.5] and found[0]["price"][0] == 2.5 and found[0]["price"][1] != found[0]["price"][1]
    )
    schema = Dataset.open(tmp_path / "out").schema
    assert (schema.category, schema.numbers, schema.tables["topic"].rows) == ("topic", ("age", "price"), 3)
    assert schema.same_as_trigger == ("topic",)
    of = {name: [None, *pq.read_table(tmp_path / "out" / "vocabulary" / f"{name}.parquet")["id"].to_pylist()]
          for name in ("item", "topic")}  # fmt: skip
    topics = pq.read_table(tmp_path / "out" / "items.parquet").to_pylist()
    assert {of["item"][row["item"]]: of["topic"][row["topic"]] for row in topics} == {
        None: None, "i0": "sport", "i1": "art", "i2": None, "i3": None,
    }  # fmt: skip


def test_numbers_of_the_page_and_of_its_user_are_those_at_its_time(tmp_path: Path) -> None:
    rows = [{**row, "depth": 10 * at, "age": "2.5" if at < 4 else "old"} for at, row in enumerate(four_views())]
    profile = [{"id": "u0", "band": 3.5, "since": NOON + 1}, {"id": "u0", "band": 1.5, "since": NOON - 1}]
    write_rows(tmp_path / "users.parquet", profile)
    users = {"files": "users.parquet", "user": "id", "numbers": ["band"], "since": "since"}
    write_rows(tmp_path / "exposures.parquet", rows)
    keys = {**EXPOSURES, "page_numbers": ["depth", {"column": "age", "name": "session_age"}]}
    report = build(write_spec(tmp_path, exposures=keys, users=users))
    found = read_pages(tmp_path / "out")
    names = ("depth", "session_age", "band")
    assert np.array([[page[name] for name in names] for page in found]) == pytest.approx(
        np.array([[0, 2.5, 1.5], [20, 2.5, np.nan], [40, np.nan, 3.5], [60, np.nan, np.nan]]), nan_ok=True
    )
    assert report.counts["numbers"]["dropped"] == {"session_age: no number, so it counts as unknown": 4}
    dataset = Dataset.open(tmp_path / "out")
    assert dataset.schema.page_numbers == names and dataset.numbers["depth"] == (10.0, 10.0) and report.faults == []


def test_weights_are_those_of_the_log_and_an_impression_with_none_is_dropped(tmp_path: Path) -> None:
    rows = [{**row, "importance": [1, 0.5, -1, 2, 0, None, 1, 1][at]} for at, row in enumerate(four_views())]
    write_rows(tmp_path / "exposures.parquet", rows)
    report = build(write_spec(tmp_path, exposures={**EXPOSURES, "weight": "importance"}))
    found = [(page["items"], page["importance"]) for page in read_pages(tmp_path / "out")]
    assert found == [(["i0", "i1"], [1, 0.5]), (["i1"], [2]), (["i0"], [0]), (["i0", "i1"], [1, 1])]
    assert report.counts["impressions"]["dropped"] == {"the weight is no number from 0 on": 2}
    assert "weight -1" in str(report)
    assert Dataset.open(tmp_path / "out").schema.weight == "importance" and report.faults == []


def test_positions_for_a_bias_count_from_one_and_the_specification_says_from_where_the_log_does(
    tmp_path: Path,
) -> None:
    rows = [{**row, "slot": None} if at == 7 else row for at, row in enumerate(four_views())]
    write_rows(tmp_path / "exposures.parquet", rows)
    keys = {**EXPOSURES, "position_bias": 5}
    below = (
        r"exposures.position: column slot is below 1, the first position, in 4 of 8 impressions, such as 0; if it "
        r"counts from 0, write \{column: slot, first: 0\}, else leave out what is no position"
    )
    with pytest.raises(DataError, match=below):
        build(write_spec(tmp_path, exposures=keys))
    report = build(write_spec(tmp_path, exposures={**keys, "position": {"column": "slot", "first": 0}}))
    assert [page["positions"] for page in read_pages(tmp_path / "out")] == [[1, 2], [1, 2], [1, 2], [1]]
    assert report.counts["impressions"]["dropped"] == {"no position, which position_bias needs": 1}
    assert "positions of column slot begin with 0, which is position 1" in str(report) and report.faults == []
    write_rows(tmp_path / "later" / "exposures.parquet", [{**row, "slot": row["slot"] + 1} for row in four_views()])
    report = build(write_spec(tmp_path / "later", exposures={**keys, "position": {"column": "slot", "first": 0}}))
    assert "warning: the lowest one is 1: does it begin there?" in str(report)
    keys.pop("position")
    with pytest.raises(DataError, match=r"exposures.position_bias: needs positions, and there are none; add position:"):
        build(write_spec(tmp_path, exposures=keys), "none")


def tags_of(folder: Path) -> dict[Any, list[Any]]:
    """By item, its tags; by its row if it has no id."""
    of = {}
    for table in ("item", "tag"):
        path = folder / "vocabulary" / f"{table}.parquet"
        of[table] = dict(enumerate([None, *pq.read_table(path)["id"].to_pylist()])) if path.exists() else {}
    rows = pq.read_table(folder / "items.parquet").to_pylist()
    return {of["item"].get(row["item"], row["item"]): [of["tag"][at] for at in row["tags"]] for row in rows}


def test_an_item_may_have_many_values_of_an_attribute_in_a_list_or_in_a_text(tmp_path: Path) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    items: list[Row] = [{"id": "i1", "labels": ["new", "red", None, ""], "topic": "a"},
                        {"id": "i2", "labels": None, "topic": "b"},
                        {"id": "i0", "labels": ["red", "rare"], "topic": "b"}]  # fmt: skip
    write_rows(tmp_path / "items.parquet", items)
    texts = [{**row, "labels": "|".join(label or "" for label in row["labels"] or [])} for row in items]
    write_rows(tmp_path / "items.csv", texts)
    tags: Row = {"column": "labels", "name": "tags", "table": "tag"}
    for name, how in (("parquet", tags), ("csv", {**tags, "separator": "|"})):
        keys = {"files": f"items.{name}", "item": "id", "attributes": [how, "topic"], "category": "topic"}
        report = build(write_spec(tmp_path, items=keys, vocabulary={"tag": {"at_least": 2}}), name)
        assert report.faults == []
    expected = {None: [], "i0": ["red", None], "i1": [None, "red"], "i2": [], "i3": []}
    assert tags_of(tmp_path / "parquet") == expected
    assert contents(tmp_path / "csv") == contents(tmp_path / "parquet")
    assert [(f.name, f.many) for f in Dataset.open(tmp_path / "csv").schema.attributes] == [
        ("tags", True), ("topic", False),
    ]  # fmt: skip
    with pytest.raises(DataError, match="category is 'tags', which is a list: the long sequence is searched by an"):
        build(write_spec(tmp_path, items={**keys, "category": "tags"}), "none")


def test_an_item_that_a_later_log_does_not_describe_keeps_its_list(tmp_path: Path) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    tags: Row = {"column": "labels", "name": "tags", "table": "tag"}
    keys: Row = {"files": "items.parquet", "item": "id", "attributes": [tags]}
    write_rows(tmp_path / "items.parquet", [{"id": "i0", "labels": ["a", "b"]}, {"id": "i1", "labels": ["b"]}])
    spec = write_spec(tmp_path, items=keys)
    build(spec, "old")
    more = [exposure("v9", "u0", "new", NOON + 99)]
    write_rows(tmp_path / "exposures.parquet", [*four_views(), *more])
    write_rows(tmp_path / "items.parquet", [{"id": "i1", "labels": ["c"]}, {"id": "new", "labels": ["a", "c", "d"]}])
    build(spec, "new", extends=tmp_path / "old")
    found = tags_of(tmp_path / "new")
    assert found == {None: [], "i0": ["a", "b"], "i1": ["c"], "i2": [], "i3": [], "t": [], "new": ["a", "c", "d"]}
    write_rows(tmp_path / "items.parquet", [{"id": "i1", "labels": "c"}])
    with pytest.raises(DataError, match="attribute 'tags' has many values an item there, and one in this log; build"):
        build(spec, "other", extends=tmp_path / "old")
    write_rows(tmp_path / "items.parquet", [{"id": f"i{at}", "labels": [f"t{at}"] * at} for at in range(4)])
    build(write_spec(tmp_path, items=keys, vocabulary={"item": {"hash": 2}}), "hashed")  # all items have row 1
    assert tags_of(tmp_path / "hashed") == {0: [], 1: ["t3"] * 3}


def test_items_bring_frozen_vectors_of_their_own_file_or_of_another(tmp_path: Path) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    write_rows(tmp_path / "items.parquet", [{"id": "i0", "text": [0.5, -0.5]}, {"id": "i2", "text": None}])
    image = {"sku": ["i1", "gone", "i0", None], "image": [[1.0, 2.0, 3.0], [7.0] * 3, [4.0, 5.0, 6.0], [8.0] * 3]}
    types = pa.schema({"sku": pa.string(), "image": pa.list_(pa.float64(), 3)})
    pq.write_table(pa.table(image, schema=types), tmp_path / "image.parquet")
    other = {"column": "image", "name": "look", "files": "image.parquet", "item": "sku"}
    keys: Row = {"files": "items.parquet", "item": "id", "vectors": ["text", other]}
    spec = write_spec(tmp_path, items=keys)
    report = build(spec)
    assert report.faults == [] and report.counts["vectors"]["dropped"] == {"look: no item": 1}
    dataset = Dataset.open(tmp_path / "out")
    assert dataset.schema.vectors == {"text": 2, "look": 3}

    def vectors(folder: str) -> dict[str, dict[str, list[float]]]:
        of = [None, *pq.read_table(tmp_path / folder / "vocabulary" / "item.parquet")["id"].to_pylist()]
        stored = open_vectors(tmp_path / folder, Dataset.open(tmp_path / folder).schema)
        return {name: {of[row]: found[row].tolist() for row in np.flatnonzero(found.any(1))}
                for name, found in stored.items()}  # fmt: skip

    assert vectors("out") == {"text": {"i0": [0.5, -0.5]}, "look": {"i0": [4, 5, 6], "i1": [1, 2, 3]}}
    write_rows(tmp_path / "exposures.parquet", [*four_views(), exposure("v9", "u0", "new", NOON + 99)])
    write_rows(tmp_path / "items.parquet", [{"id": "new", "text": [1.0, 1.0]}])
    build(spec, "grown", extends=tmp_path / "out")
    assert vectors("grown")["text"] == {"i0": [0.5, -0.5], "new": [1, 1]}


def test_items_bring_numbers_that_are_compared_with_the_triggers(tmp_path: Path) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    prices = {"i0": "2.5", "i1": "0", "i2": "", "gone": "7", "i3": "free"}
    write_rows(tmp_path / "items.csv", [{"id": item, "price": price} for item, price in prices.items()])
    keys: Row = {"files": "items.csv", "item": "id", "numbers": ["price"], "ratio_to_trigger": ["price"]}
    spec = write_spec(tmp_path, items=keys)
    report = build(spec)
    assert report.faults == [] and report.counts["numbers"]["dropped"] == {
        "price: no number above 0, so it counts as unknown": 2,
        "price: no number, so it counts as unknown": 1,
    }

    def known(folder: str) -> dict[str, float]:
        of = [None, *pq.read_table(tmp_path / folder / "vocabulary" / "item.parquet")["id"].to_pylist()]
        stored = pq.read_table(tmp_path / folder / "items.parquet")["price"].to_pylist()
        return {of[row]: value for row, value in enumerate(stored) if value == value}

    assert known("out") == {"i0": 2.5}
    write_rows(tmp_path / "items.csv", [{"id": "i3", "price": "4"}])
    build(spec, "grown", extends=tmp_path / "out")
    assert known("grown") == {"i0": 2.5, "i3": 4}
    assert Dataset.open(tmp_path / "out").schema.ratio_to_trigger == ("price",)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([{"id": "i0", "v": "x"}], "items.parquet: column v: is text, but items.vectors needs lists of floats; write"),
        ([{"id": "i0", "v": [1.0]}, {"id": "i0", "v": [2.0]}], "column v: item i0 has 2 vectors; keep one"),
        ([{"id": f"i{at}", "v": [1.0] * (2 + at // 2)} for at in range(3)],
         "column v: has vectors of 2 values (item i0) and of 3 (item i2); write all of one length"),
        ([{"id": "i0", "v": []}], "column v: has no vector; leave it out of items.vectors"),
        ([{"id": "i0", "v": [1.0, None]}], "items.vectors: v of item i0 has a value that is missing or not finite"),
        ([{"id": "i0", "v": [1.0, 1e300]}], "items.vectors: v of item i0 has a value that is missing or not finite"),
    ],
)  # fmt: skip
def test_vectors_that_are_none_are_refused(tmp_path: Path, items: list[Row], message: str) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    types = {"v": pa.list_(pa.float64())} if isinstance(items[0]["v"], list) else None
    write_rows(tmp_path / "items.parquet", items, types)
    with pytest.raises(DataError, match=re.escape(message)):
        build(write_spec(tmp_path, items={"files": "items.parquet", "item": "id", "vectors": ["v"]}))


def test_splits_are_by_date_too_and_a_gap_drops_the_pages_before_a_split(tmp_path: Path) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    dates = {"validation": "2023-11-15T00:13:20+00:00", "test": "2023-11-15T01:13:20Z", "gap": "30m"}
    report = build(write_spec(tmp_path, split=dates))
    assert [page["split"] for page in read_pages(tmp_path / "out")] == ["train", "train", "validation", "test"]
    report = build(write_spec(tmp_path, split={**dates, "gap": "1h"}), "wide")
    assert [page["split"] for page in read_pages(tmp_path / "wide")] == ["train", "test"]
    assert report.counts["pages"]["dropped"] == {"in the gap between splits": 2}
    assert report.counts["impressions"]["dropped"] == {"in the gap between splits": 4}


def test_the_long_sequence_is_cut_as_data_cut_does(tmp_path: Path) -> None:
    write_rows(tmp_path / "events.parquet", [event("u0", f"i{at % 2}", NOON - 9 + at) for at in range(8)])
    write_rows(tmp_path / "items.csv", [{"id": "i0", "topic": "x"}, {"id": "i1", "topic": "y"}])
    items = {"files": "items.csv", "item": "id", "attributes": ["topic"], "category": "topic"}
    found = pages_of(tmp_path, four_views(), items=items, events=EVENTS, behaviours={"long": {"length": 8, "cut": 1}})
    assert found[0]["long_items"] == ["i0", "i1"] and Dataset.open(tmp_path / "out").schema.cut_long_length == 1


def test_hive_partitions_compressed_csv_and_columns_in_another_order_are_read(tmp_path: Path) -> None:
    rows = four_views()
    for at, day in enumerate(("2023-11-14", "2023-11-15")):
        some = [dict(reversed(row.items())) if at else row for row in rows[4 * at : 4 * at + 4]]
        path = write_rows(tmp_path / "log" / f"day={day}" / "part.csv", some)
        for ending in (".gz", ".zst")[at:][:1]:
            with pa.output_stream(f"{path}{ending}", compression={".gz": "gzip", ".zst": "zstd"}[ending]) as packed:
                packed.write(path.read_bytes())
            path.unlink()
    keys = {**EXPOSURES, "files": "log", "time": {"column": "time", "unit": "s"}, "features": ["day"]}
    build(write_spec(tmp_path, exposures=keys))
    packed_pages = read_pages(tmp_path / "out")
    assert [page.pop("day") for page in packed_pages] == ["2023-11-14", "2023-11-14", "2023-11-15", "2023-11-15"]
    assert packed_pages == pages_of(tmp_path / "plain", rows)


@pytest.mark.parametrize(
    ("times", "how"),
    [
        ([NOON * 1000 + 999], {"column": "time", "unit": "ms"}),
        ([NOON * 1_000_000], {"column": "time", "unit": "us"}),
        ([NOON * 10**9 + 999_999_999], {"column": "time", "unit": "ns"}),
        ([float(NOON) + 0.25], "time"),
        (["2023-11-14 22:13:20"], "time"),
        (["2023-11-14T23:13:20+01:00"], "time"),
        (["2023-11-14 23:13:20.5"], {"column": "time", "zone": "Europe/Copenhagen"}),
        ([str(NOON)], {"column": "time", "unit": "s"}),
        (pa.array([NOON * 1000], pa.timestamp("ms")), "time"),
        (pa.array([NOON], pa.timestamp("s", "America/Lima")), "time"),
        (pa.array([NOON], pa.int32()), "time"),
        ([61_999], {"column": "time", "unit": "ms", "offset": (NOON - 61) * 1000}),
        ([2.5], {"column": "time", "offset": NOON - 2}),
        (["-1"], {"column": "time", "unit": "s", "offset": NOON + 1}),
        (pa.array([NOON + 3600], pa.timestamp("s")), {"column": "time", "zone": "Europe/Copenhagen"}),
    ],
    ids=str,
)
def test_times_are_numbers_of_any_unit_or_dates_with_and_without_zone(tmp_path: Path, times: Any, how: Any) -> None:
    table = pa.table(
        {"view": ["v"], "user": ["u"], "item": ["a"], "time": times, "clicked": [1], "entry": ["a"], "slot": [0]}
    )
    pq.write_table(table, tmp_path / "exposures.parquet")
    build(write_spec(tmp_path, exposures={**EXPOSURES, "time": how}, split=ALL_TRAIN))
    assert [page["time"] for page in read_pages(tmp_path / "out")] == [NOON]


def test_the_trigger_may_be_taken_out_of_its_own_page(tmp_path: Path) -> None:
    write_rows(tmp_path / "exposures.parquet", [*four_views(), exposure("v9", "u0", "i9", NOON, entry="i9")])
    report = build(write_spec(tmp_path, exposures={**EXPOSURES, "without_trigger": True}))
    assert [page["items"] for page in read_pages(tmp_path / "out")[:2]] == [["i1"], ["i0"]]
    assert report.counts["impressions"]["dropped"] == {"the trigger of its page": 3}
    assert report.counts["pages"]["dropped"] == {"no impression left": 1}


def test_a_log_that_does_not_fit_into_memory_makes_the_same_folder(tmp_path: Path) -> None:
    rows = [
        exposure(
            f"v{at // 10}", f"u{at // 10 % 977}", f"item number {at * 31 % 4999}", NOON + at // 10, at % 2, slot=at
        )
        for at in range(100_000)
    ]
    write_rows(tmp_path / "exposures.csv", rows)
    keys = {**EXPOSURES, "files": "exposures.csv", "time": {"column": "time", "unit": "s"}}
    spec = write_spec(tmp_path, exposures=keys)
    build(spec, "large", memory_limit="1GB")
    build(spec, "small", memory_limit="60MB")  # less than 20 bytes for each of the log
    assert contents(tmp_path / "small") == contents(tmp_path / "large")
