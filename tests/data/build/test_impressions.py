"""How the rows of a log become impressions on page views: keys, times, labels, positions, weights."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.errors import DataError
from tests.data.build.raw_logs import (
    EVENTS,
    EXPOSURES,
    NOON,
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

ALL_TRAIN = {"validation": "2040-01-01", "test": "2040-01-01"}


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
