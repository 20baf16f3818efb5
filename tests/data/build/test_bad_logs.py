"""A log with something wrong: a message with file, row and column, or a drop that is counted."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.errors import DataError, OptionError
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
TEXT_TIME = {"column": "time", "unit": "s"}


def dropped(folder: Path, rows: list[Row], kind: str = "impressions", **spec: Any) -> dict[str, int]:
    """What a build of a log drops, and the example of each, which must name something."""
    write_rows(folder / "exposures.parquet", rows)
    report = build(write_spec(folder, **spec))
    counts = report.counts[kind].get("dropped", {})
    assert all(report.examples[kind][reason] for reason in counts if kind == "impressions")
    return counts


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"user": "usr"}, r"exposures.parquet: column usr: missing, but exposures.user names it; did you mean user\?"),
        ({"numbers": ["price"]}, "column price: missing, but exposures.numbers names it; The columns are view, user"),
        ({"page": ["user", "session"]}, "column session: missing, but exposures.page names it"),
        ({"numbers": ["tags"]}, "column tags: is list of int, but exposures.numbers needs numbers"),
        ({"clicks": "tags"}, "column tags: is list of int, but exposures.clicks needs 0 or 1"),
        ({"clicks": {"ids": "user"}}, "column user: exposures.clicks.ids needs a list column, beside a list of items"),
        (
            {"time": "user"},
            "no impression is left of 8: no time, or not one in seconds or as a date: for example .*row 0",
        ),
        ({"time": "truth"}, r"column truth: is true/false \(boolean\), but exposures.time needs times"),
        (
            {"time": {"column": "day", "offset": 9}},
            "column day: is timestamp, but exposures.time.offset is added to numbers; leave it out",
        ),
        (
            {"time": {"column": "user", "offset": 9}},
            "column user: is text, but exposures.time.offset is added to numbers; name their unit with exposures",
        ),
        (
            {"time": {"column": "time", "unit": "ms"}},
            "no impression is left of 8: time before the year 2000: is it in another",
        ),
        ({"item": "day"}, "column day: is timestamp, but exposures.item needs ids; write integers or text"),
        ({"files": "exposure.parquet"}, "exposure.parquet: no such file, but exposures.files names it"),
        ({"files": "log.yaml"}, "log.yaml: the name says neither Parquet nor CSV"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_column_or_file_that_does_not_fit_is_named(tmp_path: Path, keys: Row, message: str) -> None:
    write_rows(tmp_path / "exposures.parquet", [{**row, "tags": [1], "truth": True} for row in four_views()],
               {"day": pa.timestamp("s")})  # fmt: skip
    with pytest.raises(DataError, match=message):
        build(write_spec(tmp_path, exposures={**EXPOSURES, **keys}))
    assert not (tmp_path / "out").exists()


def test_a_column_of_two_types_names_both_parts(tmp_path: Path) -> None:
    for part in range(20):
        rows = [{**row, "user": part if part == 13 else row["user"]} for row in four_views()]
        write_rows(tmp_path / "log" / f"part-{part:02d}.parquet", rows)
    with pytest.raises(DataError, match=r"part-13.parquet: column user: is int, but in .*part-00.parquet it is text"):
        build(write_spec(tmp_path, exposures={**EXPOSURES, "files": "log"}))


def test_a_part_whose_values_are_all_missing_fits_every_type(tmp_path: Path) -> None:
    for part, user in enumerate((None, "u", None)):
        write_rows(tmp_path / "log" / f"part-{part}.parquet", [{**row, "user": user} for row in four_views()])
    report = build(write_spec(tmp_path, exposures={**EXPOSURES, "files": "log"}))
    assert report.counts["impressions"]["dropped"] == {"no user": 16}


def test_times_in_the_future_are_dropped(tmp_path: Path) -> None:
    rows = [*four_views(), exposure("v9", "u", "a", 4_000_000_000)]
    assert dropped(tmp_path, rows) == {"time in the future": 1}


def test_seconds_that_are_milliseconds_are_dropped_with_a_hint_if_they_are_some(tmp_path: Path) -> None:
    rows = [*four_views(), exposure("v9", "u", "a", NOON * 1000), exposure("v9", "u", "a", NOON // 1000)]
    assert dropped(tmp_path, rows) == {
        "no time: not one in s, but probably one in ms; write unit: ms": 1,
        "time before the year 2000: is it in another unit, or lacks it an offset?": 1,
    }


def test_a_time_far_beyond_all_numbers_is_dropped_with_an_offset_too(tmp_path: Path) -> None:
    rows = [{**row, "time": row["time"] - NOON} for row in four_views()]
    rows += [exposure("v9", "u", "a", time) for time in (2**63 - 1, -(2**63), -NOON - 1)]
    keys = {**EXPOSURES, "time": {"column": "time", "offset": NOON}}
    assert dropped(tmp_path, rows, exposures=keys) == {
        "no time, or not one in seconds or as a date": 1,
        "no time: not one in s, but probably one in ns; write unit: ns": 2,
    }


@pytest.mark.parametrize(
    ("times", "how", "hint"),
    [
        ([NOON * 1000], "time", "not one in s, but probably one in ms; write unit: ms"),
        ([NOON * 10.0**9], "time", "not one in s, but probably one in ns; write unit: ns"),
        ([NOON * 10**6], {"column": "time", "unit": "ms"}, "not one in ms, but probably one in us; write unit: us"),
        ([str(NOON)], "time", "a number without a unit, but probably one in s; write unit: s"),
        ([str(NOON * 1000)], {"column": "time", "unit": "s"}, "not one in s, but probably one in ms; write unit: ms"),
    ],
)
def test_a_number_of_another_unit_gets_a_hint_by_its_digits(tmp_path: Path, times: Any, how: Any, hint: str) -> None:
    rows = [exposure("v", "u", "a", time) for time in times]
    write_rows(tmp_path / "exposures.parquet", rows)
    with pytest.raises(DataError, match=rf"no impression is left of 1: no time: {hint}: for example .*row 0"):
        build(write_spec(tmp_path, exposures={**EXPOSURES, "time": how}))
    write_rows(tmp_path / "exposures.parquet", four_views())
    write_rows(tmp_path / "events.parquet", [event("u0", "i0", time) for time in times])
    with pytest.raises(DataError, match=rf"no event is left of 1: no time: {hint}: for example .*row 0"):
        build(write_spec(tmp_path, events={**EVENTS, "time": how}, behaviours={"short": 2}))


def test_broken_lines_of_a_csv_file_are_counted_and_one_is_shown(tmp_path: Path) -> None:
    rows = [exposure(f"v{at // 4}", f"u{at // 4}", f"i{at}", NOON + at // 4, slot=at % 4) for at in range(1000)]
    path = write_rows(tmp_path / "exposures.csv", rows)
    lines = path.read_text().splitlines()
    for at in range(50, 1000, 100):
        lines[at] = lines[at].replace(",", ";", 1) if at % 200 == 50 else lines[at] + ",more"
    path.write_text("\n".join(lines) + "\n")
    keys = {**EXPOSURES, "files": "exposures.csv", "time": TEXT_TIME}
    report = build(write_spec(tmp_path, exposures=keys))
    counts = report.counts["impressions"]
    assert counts["dropped"] == {"line of the CSV file is broken": 10} and counts["kept"] == {"total": 990}
    example = report.examples["impressions"]["line of the CSV file is broken"]
    assert example == f"{path}: row 51: Expected Number of Columns: 7 Found: 6"


def test_a_quote_that_does_not_close_counts_all_lines_that_it_takes(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "exposures.csv", [*four_views(), *four_views()])
    lines = path.read_text().splitlines()
    lines[4] = '"' + lines[4]
    path.write_text("\n".join(lines) + "\n")
    keys = {**EXPOSURES, "files": "exposures.csv", "time": TEXT_TIME}
    report = build(write_spec(tmp_path, exposures=keys, split=ALL_TRAIN))
    counts = report.counts["impressions"]
    assert counts["read"]["total"] == 16 == counts["kept"]["total"] + sum(counts["dropped"].values())


def test_bytes_that_are_not_utf8_are_a_broken_line(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "exposures.csv", four_views())
    path.write_bytes(path.read_bytes().replace(b"v3,u1,i0", b"v3,u\xff1,i0"))
    keys = {**EXPOSURES, "files": "exposures.csv", "time": TEXT_TIME}
    report = build(write_spec(tmp_path, exposures=keys))
    assert report.counts["impressions"]["dropped"] == {"line of the CSV file is broken": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; the first line of a CSV file has the names of its columns"),
        ("view,user,user\n", "row 1: the column 'user' is there twice"),
        (
            "view;user;item\n1;2;3\n",
            "column user: missing, but exposures.user names it; .*The columns are view;user;item",
        ),
        ("view,user,item,time,clicked,entry,slot\n", "no impression is left of 0: the files have no rows"),
    ],
)
def test_a_csv_file_without_rows_or_with_another_header_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "exposures.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        build(write_spec(tmp_path, exposures={**EXPOSURES, "files": "exposures.csv", "time": TEXT_TIME}))


def test_a_link_to_files_that_are_read_already_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "log" / "a" / "part.parquet", four_views())
    (tmp_path / "log" / "b").symlink_to(tmp_path / "log")
    with pytest.raises(
        DataError, match="log/b: a link to a folder whose files are read already; they would count twice"
    ):
        build(write_spec(tmp_path, exposures={**EXPOSURES, "files": "log"}))


def test_a_parquet_file_that_was_cut_off_is_named(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "exposures.parquet", four_views())
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"exposures.parquet"):
        build(write_spec(tmp_path))


def test_an_event_table_without_rows_gives_pages_without_behaviours(tmp_path: Path) -> None:
    types = {name: pa.string() for name in ("user", "item", "type")}
    pq.write_table(pa.schema([*types.items(), ("time", pa.int64())]).empty_table(), tmp_path / "events.parquet")
    keys = {**EXPOSURES, "clicks": {"types": ["click"], "within": "1h"}}
    assert dropped(tmp_path, four_views(), exposures=keys, events=EVENTS, behaviours={"long": 9, "short": 2}) == {}
    assert [page["long_items"] + page["clicks"] for page in read_pages(tmp_path / "out")] == [[0, 0]] * 4


def test_events_that_cannot_be_read_are_dropped_by_reason(tmp_path: Path) -> None:
    told = [event("u0", "i0", NOON - 1), event(None, "i0", NOON), event("u0", "", NOON), event("u0", "i0", None),
            event("u0", "i0", 4_000_000_000), event("stranger", "i0", NOON)]  # fmt: skip
    write_rows(tmp_path / "events.parquet", told)
    assert dropped(tmp_path, four_views(), "events", events=EVENTS, behaviours={"long": 9}) == {
        "no item": 1,
        "no time, or not one in seconds or as a date": 1,
        "no user": 1,
        "time in the future": 1,
        "of users without a page view": 1,
    }


def test_a_user_with_a_million_events_costs_memory_for_those_of_the_page(tmp_path: Path) -> None:
    many = 1_000_000
    events = {"user": pa.array(["u0"]).take(pa.array(np.zeros(many, int))), "item": np.arange(many) % 50, "time":
              NOON - many + np.arange(many)}  # fmt: skip
    pq.write_table(pa.table(events), tmp_path / "events.parquet")
    write_rows(tmp_path / "exposures.parquet", [{**row, "item": 7 + row["slot"], "entry": 7} for row in four_views()])
    spec = write_spec(tmp_path, events={**EVENTS, "type": None} | {"type": "user"}, behaviours={"long": 100})
    tracemalloc.start()
    build(spec)
    assert tracemalloc.get_traced_memory()[1] < 16e6  # the events in Python would be 16 MB
    tracemalloc.stop()
    first = read_pages(tmp_path / "out")[0]
    assert first["long_times"] == list(range(NOON - 100, NOON))


def test_a_page_of_more_items_than_anybody_sees_is_dropped(tmp_path: Path) -> None:
    robot = [exposure("robot", "u0", f"i{at}", NOON, slot=at) for at in range(5000)]
    write_rows(tmp_path / "exposures.parquet", [*four_views(), *robot])
    report = build(write_spec(tmp_path))
    assert report.counts["impressions"]["dropped"] == {"on a page view of more than 1000 items": 5000}
    assert report.counts["pages"]["dropped"] == {"more than 1000 items": 1}
    build(write_spec(tmp_path, exposures={**EXPOSURES, "most_items": 5000}), "all")
    assert max(len(page["items"]) for page in read_pages(tmp_path / "all")) == 5000


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_ids_of_2_to_the_63_and_more_are_kept_to_the_last_digit(tmp_path: Path, ending: str) -> None:
    rows = [{**row, "item": 2**63 + row["slot"], "entry": 2**63} for row in four_views()]
    types = {"item": pa.uint64(), "entry": pa.uint64()}
    write_rows(tmp_path / f"exposures{ending}", rows, types)
    keys = {**EXPOSURES, "files": f"exposures{ending}", "time": TEXT_TIME}
    build(write_spec(tmp_path, exposures=keys))
    assert read_pages(tmp_path / "out")[0]["items"] == ["9223372036854775808", "9223372036854775809"]


def test_integers_that_a_missing_value_made_floats_are_integers_again(tmp_path: Path) -> None:
    rows = [{**row, "entry": float(row["slot"]) if row["view"] == "v0" else None, "item": 5} for row in four_views()]
    assert dropped(tmp_path, rows[1:]) == {"shown again on its page": 3}
    assert [page["trigger"] for page in read_pages(tmp_path / "out")] == [1, None, None, None]


def test_lists_of_unequal_length_are_dropped_with_all_of_their_row(tmp_path: Path) -> None:
    clicked = {"v0": [0, 1, 1], "v1": [1], "v2": None}  # of v2, nobody knows the labels
    rows = [{**row, "item": ["a", "b"], "clicked": clicked.get(row["view"], [1, 0])} for row in four_views()[::2]]
    write_rows(tmp_path / "events.parquet", [{**event("u0", ["i0", "i1"], NOON - 1), "type": ["click"]}])
    spec = write_spec(tmp_path, events=EVENTS, behaviours={"short": 2}, split={"validation": 0, "test": 0})
    write_rows(tmp_path / "exposures.parquet", rows)
    with pytest.raises(DataError, match="no event is left of 2: lists of unequal length on its row: item, type: for"):
        build(spec)
    report = build(write_spec(tmp_path, split={"validation": 0, "test": 0}))
    assert report.counts["impressions"]["dropped"] == {
        "a label is neither 0 nor 1": 2,
        "lists of unequal length on its row: item, clicked": 5,
    }
    assert "exposures.parquet: row 0: user u0" in str(report)


def test_rows_with_an_empty_list_of_items_are_counted_and_empty_histories_are_not(tmp_path: Path) -> None:
    empty: list[list[str] | None] = [[], None]
    rows = [{**row, "item": ["a", "b"], "clicked": [1, 0]} for row in four_views()[::2]]
    rows += [{**row, "view": "none", "item": none, "clicked": none} for row in four_views()[:1] for none in empty]
    histories = [event("u0", ["i0", "i1"], NOON - 1), *(event("u1", none, NOON - 1) for none in empty)]
    write_rows(tmp_path / "events.parquet", histories)
    write_rows(tmp_path / "exposures.parquet", rows)
    split = {"validation": 0, "test": 0}
    report = build(write_spec(tmp_path, events=EVENTS, behaviours={"short": 2}, split=split))
    assert report.counts["impressions"]["read"] == {"total": 10}
    assert report.counts["impressions"]["dropped"] == {"no item in the list of its row": 2}
    assert report.counts["events"]["read"] == {"total": 2}


def test_an_impression_of_another_user_than_its_page_is_dropped(tmp_path: Path) -> None:
    rows = [
        *four_views(),
        exposure("v0", "other", "a", NOON + 1, entry="i0"),
        exposure("v0", "u0", "b", NOON, entry="x", slot=9),
    ]
    assert dropped(tmp_path, rows) == {
        "of another trigger than the first impression of its page": 1,
        "of another user than the first impression of its page": 1,
    }


def test_a_split_that_leaves_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    with pytest.raises(
        DataError, match="no page view is left to train on: validation begins at 2020-01-01 00:00:00 UTC"
    ):
        build(write_spec(tmp_path, split={"validation": "2020-01-01", "test": "2021-01-01"}))


def test_a_dataset_whose_ids_are_of_another_type_cannot_be_extended(tmp_path: Path) -> None:
    write_rows(tmp_path / "exposures.parquet", [{**row, "item": row["slot"], "entry": 1} for row in four_views()])
    build(write_spec(tmp_path))
    write_rows(tmp_path / "exposures.parquet", four_views())
    with pytest.raises(DataError, match="the ids of table 'item' are integers, but those of this log are text"):
        build(write_spec(tmp_path), "new", extends=tmp_path / "out")
    with pytest.raises(
        DataError, match="table 'user' has 3 rows, mapping dense, which a dataset that extends it must keep"
    ):
        build(write_spec(tmp_path, vocabulary={"user": {"hash": 9}}), "new", extends=tmp_path / "out")


@pytest.mark.parametrize(("limit", "threads"), [("much", 1), ("2 Gigabyte", 1), ("2GB", -1)])
def test_limits_that_are_none_are_refused(tmp_path: Path, limit: str, threads: int) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    with pytest.raises(OptionError, match=r"memory_limit is|threads is"):
        build(write_spec(tmp_path), memory_limit=limit, threads=threads)


def test_a_limit_that_does_not_suffice_says_so(tmp_path: Path) -> None:
    rows = [
        exposure(f"v{at // 10}", f"u{at // 10}", f"i{at % 99}", NOON + at // 10, slot=at % 10) for at in range(20_000)
    ]
    write_rows(tmp_path / "exposures.parquet", rows)
    with pytest.raises(DataError, match=r"the memory limit does not suffice: .*; give more with --memory_limit"):
        build(write_spec(tmp_path), memory_limit="1MB")


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_compressed_file_that_is_cut_off_is_refused(tmp_path: Path, ending: str) -> None:
    rows = [exposure(f"v{at}", f"u{at}", f"i{at * at}", NOON + at) for at in range(3000)]
    path = write_rows(tmp_path / "exposures.csv", rows)
    codec = {".gz": "gzip", ".zst": "zstd"}[ending]
    with pa.output_stream(f"{path}{ending}", compression=codec) as packed:
        packed.write(path.read_bytes())
    packed_path = Path(f"{path}{ending}")
    packed_path.write_bytes(packed_path.read_bytes()[: packed_path.stat().st_size // 2])
    keys = {**EXPOSURES, "files": packed_path.name, "time": TEXT_TIME}
    with pytest.raises(DataError, match=rf"exposures.csv{ending}: (cannot be unpacked|its first line)"):
        build(write_spec(tmp_path, exposures=keys))


def test_a_type_that_no_event_has_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    write_rows(tmp_path / "events.parquet", [event("u0", "i0", NOON - 1), event("u0", "i0", NOON - 1, "order")])
    with pytest.raises(DataError, match=r"behaviours.short.types: no event has 'clock' in .* there are click, order"):
        build(write_spec(tmp_path, events=EVENTS, behaviours={"short": {"length": 2, "types": ["clock"]}}))


def test_events_whose_times_are_in_another_unit_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    write_rows(tmp_path / "events.parquet", [event("u0", "i0", NOON - 1)])
    keys = {**EVENTS, "time": {"column": "time", "unit": "ms"}}
    with pytest.raises(DataError, match=r"no event is left of 1: time before the year 2000"):
        build(write_spec(tmp_path, events=keys, behaviours={"short": 2}))


def test_a_split_without_page_views_is_said(tmp_path: Path) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    said: list[str] = []
    build(write_spec(tmp_path, split={"validation": "2040-01-01", "test": "2040-01-02"}), say=said.append)
    assert "warning: split.test of the specification leaves no page view in test/" in said


def test_a_place_that_cannot_be_written_is_said_before_the_log_is_read(tmp_path: Path) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    spec = write_spec(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/out: cannot be written: .*; name another folder"):
        build(spec, "file/out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    said: list[str] = []
    with pytest.raises(DataError, match=r"full: exists and is not empty; name another folder, or remove it"):
        build(spec, "full", say=said.append)
    assert said == []


def test_a_text_that_is_no_number_is_counted_and_a_column_of_them_is_refused(tmp_path: Path) -> None:
    for some, price in ((True, "2.5"), (False, "12,50")):
        rows = [{**row, "price": "" if at == 1 else "n/a" if at == 2 else price} for at, row in enumerate(four_views())]
        folder = tmp_path / price
        write_rows(folder / "exposures.parquet", rows)
        spec = write_spec(folder, exposures={**EXPOSURES, "numbers": ["price"]})
        if some:
            report = build(spec)
            assert report.counts["numbers"]["dropped"] == {"price: no number, so it counts as unknown": 1}
            assert report.examples["numbers"] == {"price: no number, so it counts as unknown": "n/a"}
        else:
            with pytest.raises(DataError, match=r"exposures.numbers: none of the 7 values of 'price' is a number"):
                build(spec)


def test_a_second_row_of_a_user_is_counted(tmp_path: Path) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    write_rows(tmp_path / "users.parquet", [{"id": "u0", "city": city} for city in ("Rome", "Oslo", "Bonn")])
    users = {"files": "users.parquet", "user": "id", "features": ["city"]}
    report = build(write_spec(tmp_path, users=users))
    assert report.counts["users"]["dropped"] == {"another row of the same user and time": 2}


def test_times_and_ids_that_are_no_numbers_are_dropped_and_do_not_end_the_build(tmp_path: Path) -> None:
    nothing = float("nan")  # as Spark and polars write a missing number
    rows = [{**row, "time": nothing if at == 1 else row["time"] + 0.5, "slot": nothing if at == 3 else 1.0,
             "item": nothing if at == 5 else float(at)} for at, row in enumerate(four_views())]  # fmt: skip
    assert dropped(tmp_path, rows) == {"no item": 1, "no time, or not one in seconds or as a date": 1}
    assert [page["items"] for page in read_pages(tmp_path / "out")] == [["0"], ["2", "3"], ["4"], ["6", "7"]]


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_a_column_beside_one_of_its_name_in_other_letters_is_refused(tmp_path: Path, ending: str) -> None:
    write_rows(tmp_path / f"exposures{ending}", [{**row, "User": "x"} for row in four_views()])
    for name in ("user", "User"):
        keys = {**EXPOSURES, "files": f"exposures{ending}", "user": name, "time": TEXT_TIME}
        with pytest.raises(DataError, match=r"the columns '[Uu]ser' and '[Uu]ser' differ in case alone"):
            build(write_spec(tmp_path, exposures=keys))


IDS = ", such as '1', is in the impressions, which have ids such as 'XX'; write ids alike in all tables, or leave "


@pytest.mark.parametrize(
    ("name", "table", "spec", "message"),
    [
        ("events", [event("1", "i0", NOON)], {**EVENTS}, "column user: none of its ids" + IDS.replace("XX", "u0")),
        (
            "users",
            [{"id": "1", "city": "Rome"}],
            {"files": "users.parquet", "user": "id", "features": ["city"]},
            "column id: none of its ids" + IDS.replace("XX", "u0"),
        ),
        (
            "items",
            [{"id": "1", "topic": "art"}],
            {"files": "items.parquet", "item": "id", "attributes": ["topic"]},
            "column id: none of its ids" + IDS.replace("XX", "i0"),
        ),
    ],
)
def test_a_table_whose_ids_are_none_of_the_impressions_is_refused(
    tmp_path: Path, name: str, table: list[Row], spec: Row, message: str
) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    write_rows(tmp_path / f"{name}.parquet", table)
    with pytest.raises(DataError, match=message + f"{name}: out"):
        build(write_spec(tmp_path, **{name: spec}))


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("view;user;item\n", 'column user: missing, but exposures.user names it; write exposures.delimiter: ";", if'),
        ("view\tuser\titem\n", r'write exposures.delimiter: "\\t", if that is between them'),
        ("view,größe\n".encode("latin-1"), "its first line is not UTF-8; write the file in UTF-8"),
        ("view,user\n".encode("utf-16"), "its first line is not UTF-8; write the file in UTF-8"),
    ],
)
def test_a_csv_file_of_another_form_gets_a_remedy(tmp_path: Path, contents: str | bytes, message: str) -> None:
    (tmp_path / "exposures.csv").write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    with pytest.raises(DataError, match=message):
        build(write_spec(tmp_path, exposures={**EXPOSURES, "files": "exposures.csv"}))


def test_a_parquet_file_without_columns_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({}), tmp_path / "exposures.parquet")
    with pytest.raises(DataError, match=r"exposures.parquet: has no columns; write it again, or leave it out"):
        build(write_spec(tmp_path))


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_column_may_be_called_as_an_option_of_the_engine_and_not_as_a_column_of_it(
    tmp_path: Path, ending: str
) -> None:
    keys = {**EXPOSURES, "files": f"exposures{ending}", "time": TEXT_TIME}
    write_rows(tmp_path / f"exposures{ending}", [{**row, "filename": "x"} for row in four_views()])
    assert build(write_spec(tmp_path, exposures=keys)).counts["impressions"]["kept"] == {"total": 8}
    write_rows(tmp_path / f"exposures{ending}", [{**row, "_file": "x"} for row in four_views()])
    with pytest.raises(DataError, match=rf"exposures{ending}: column _file: a build uses this name itself; rename"):
        build(write_spec(tmp_path, exposures=keys))


def test_a_column_in_the_file_and_in_the_name_of_its_folder_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "log" / "slot=1" / "part.parquet", four_views())
    with pytest.raises(DataError, match=r"part.parquet: column slot: is in the file and in the names of its folders"):
        build(write_spec(tmp_path, exposures={**EXPOSURES, "files": "log"}))
