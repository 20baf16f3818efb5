"""Which profile, and which numbers of the page, a page view gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.errors import DataError
from tests.data.build.raw_logs import (
    EXPOSURES,
    NOON,
    build,
    exposure,
    four_views,
    pages_of,
    read_pages,
    write_rows,
    write_spec,
)

ALL_TRAIN = {"validation": "2040-01-01", "test": "2040-01-01"}


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
