"""Spark makes the same folder as DuckDB, to the byte. `make test-spark` runs these; they need pyspark and Java."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lightning_ccn.data.build.draft import draft
from lightning_ccn.errors import DataError
from tests.data.build.raw_logs import (
    EVENTS,
    EXPOSURES,
    NOON,
    Row,
    build,
    contents,
    event,
    exposure,
    outbrain_log,
    write_rows,
    write_spec,
)

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module", autouse=True)
def spark() -> Iterator[Any]:
    """One session of two cores for all tests; a build takes the session that there is."""
    from pyspark.sql import SparkSession

    options = {"spark.sql.shuffle.partitions": "3", "spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1"}
    session = SparkSession.builder.master("local[2]").config(map=options).getOrCreate()
    yield session
    session.stop()


def same(spec: Path) -> Any:
    """Builds with both engines; the report of Spark."""
    here, there = build(spec, "duckdb"), build(spec, "spark", engine="spark")
    assert contents(spec.parent / "spark") == contents(spec.parent / "duckdb")
    assert there.counts == here.counts and there.examples.keys() == here.examples.keys()
    assert there.warnings == here.warnings
    return there


def a_log(folder: Path, seed: int, ending: str) -> dict[str, Row]:
    """Tables with ties, doubles, nulls, unknown and strange ids; what the specification says of them."""
    draw = random.Random(seed)
    items, users = ["a", "b", "é", "日本", "sku-1", "", None, "x'y", 'q"q'], ["u", "ü", "v", "w", None]
    rows = [
        {**exposure(f"v{draw.randrange(60)}", draw.choice(users), draw.choice(items), NOON + draw.randrange(0, 4000),
                    draw.choice([0, 1, 0, 1, 2]), draw.choice(["a", "b", None]), draw.randrange(3)),
         "device": draw.choice(["phone", "desk", None]), "price": draw.choice([1.5, 2.25, None, 1e300]),
         "depth": draw.choice([1, 2.5, None]), "importance": draw.choice([0.5, 1, 1, -1])}
        for _ in range(600)
    ]  # fmt: skip
    kinds = ["click", "order"]
    told = [event(draw.choice(users), draw.choice(items), NOON + draw.randrange(-500, 4500), draw.choice(kinds))
            for _ in range(900)]  # fmt: skip
    ends = ["", NOON + draw.randrange(3000), "soon", 253_402_214_400]
    profile = [{"user": user, "city": draw.choice(["Rome", "Oslo"]), "tags": draw.choice(["x|y", "y", ""]),
                "band": draw.choice([1, 2.5, None]), "since": NOON + draw.randrange(-9, 3000),
                "until": draw.choice(ends) if ending == ".csv" else NOON + 2000}
               for user in users * 3]  # fmt: skip
    stock = [
        {
            "item": item,
            "topic": draw.choice(["s", "t"]),
            "cost": draw.choice(["2.5", "none"]),
            "labels": draw.choice(["x y", "y", ""]),
        }
        for item in items * 2
    ]
    pictures = [{"sku": item, "image": [draw.random(), 1.0]} for item in items if item]
    write_rows(folder / "pictures.parquet", pictures)
    for name, table in (("exposures", rows), ("events", told), ("users", profile), ("items", stock)):
        write_rows(folder / f"{name}{ending}", table)
    seconds = {"column": "time", "unit": "s"}
    return {
        "exposures": {
            **EXPOSURES, "files": f"exposures{ending}", "time": seconds,
            "page": {"columns": ["user", "entry"], "gap": "2m"}, "numbers": ["price"], "features": ["device"],
            "purchases": {"types": ["order"], "within": "10m"}, "weight": "importance", "page_numbers": ["depth"],
            "position": {"column": "slot", "first": 0}, "position_bias": 2,
        },
        "events": {**EVENTS, "files": f"events{ending}", "time": seconds},
        "users": {"files": f"users{ending}", "user": "user", "since": {"column": "since", "unit": "s"},
                  "until": {"column": "until", "unit": "s"},
                  "numbers": ["band"], "features": ["city", {"column": "tags", "separator": "|", "table": "topic"}]},
        "items": {"files": f"items{ending}", "item": "item",
                  "attributes": ["topic", {"column": "labels", "separator": " "}], "category": "topic",
                  "numbers": ["cost"], "ratio_to_trigger": [{"column": "cost", "name": "cost_of_item"}],
                  "vectors": [{"column": "image", "files": "pictures.parquet", "item": "sku"}]},
        "behaviours": {"short": {"length": 3, "types": ["click"]}, "long": {"length": 20, "cut": 4}},
        "vocabulary": {"item": {"at_least": 3}, "user": {"hash": 50}},
        "split": {"validation": 0.2, "test": 0.2, "gap": "1m"},
    }  # fmt: skip


@pytest.mark.parametrize(("seed", "ending"), [(1, ".parquet"), (2, ".csv")])
def test_a_log_with_ties_doubles_and_nulls_becomes_the_same_folder(tmp_path: Path, seed: int, ending: str) -> None:
    report = same(write_spec(tmp_path, **a_log(tmp_path, seed, ending)))
    assert len(report.counts["impressions"]["dropped"]) >= 4 and report.faults == []
    assert ("its end is no time" in report.counts["users"]["dropped"]) == (ending == ".csv")


def test_ids_in_two_spellings_ends_and_zones_are_read_the_same(tmp_path: Path) -> None:
    items = ("7", "7.0", " a", "a", "NULL", "\\N")
    zones = ("", "Z", "+01:00")
    rows = [exposure(f"v{at}", "u", item, f"2023-11-14 22:13:2{at}{zones[at % 3]}") for at, item in enumerate(items)]
    write_rows(tmp_path / "exposures.csv", [*rows, exposure("v9", "u", "a", "2023-11-14 22:13:20 Europe/Rome")])
    dates = ("2023-11-20", "9999-12-31", "soon", "")
    profile = [{"id": "u", "city": f"c{at}", "from": f"2023-11-1{at}", "to": date} for at, date in enumerate(dates)]
    write_rows(tmp_path / "users.csv", profile)
    users = {"files": "users.csv", "user": "id", "since": "from", "until": "to", "features": ["city"]}
    keys = {**EXPOSURES, "files": "exposures.csv", "time": {"column": "time", "zone": "America/New_York"}}
    report = same(write_spec(tmp_path, exposures=keys, users=users))
    assert report.counts["users"]["dropped"] == {"its end is no time": 1} and len(report.warnings) == 2


def test_lists_times_with_zones_and_partitions_become_the_same_folder(tmp_path: Path) -> None:
    for day in ("2023-11-14", "2023-11-15"):
        rows = [
            {"view": view, "user": view % 3, "item": [f"i{at}" for at in range(view % 4)],
             "clicked": [f"i{view % 2}", None, "no"], "slot": [*range(view % 4)],
             "entry": 2**63 + view, "time": f"{day} 22:13:{20 + view}.5"}
            for view in range(1, 20)
        ]  # fmt: skip
        types = {"entry": pa.uint64()}
        write_rows(tmp_path / "log" / f"day={day}" / "part.parquet", rows, types)
        odd = {**rows[0], "item": ["i0", "i1"], "slot": [1]}
        write_rows(tmp_path / "log" / f"day={day}" / "odd.parquet", [odd, {**odd, "slot": None}], types)
    keys = {name: value for name, value in EXPOSURES.items() if name not in ("position", "page")}
    keys |= {
        "files": "log",
        "clicks": {"ids": "clicked"},
        "numbers": ["slot"],
        "time": {"column": "time", "zone": "Europe/Copenhagen"},
    }
    report = same(write_spec(tmp_path, exposures={**keys, "page": ["view", "day"], "features": ["day"]}))
    assert report.counts["impressions"]["dropped"]["no item in the list of its row"] == 8


def test_outbrains_log_whose_times_have_an_offset_becomes_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same(outbrain_log(tmp_path, 300, monkeypatch))


@pytest.mark.parametrize(("kind", "beyond"), [(pa.int32(), [-NOON - 1]), (pa.int64(), [2**63 - 1, -(2**63)])], ids=str)
def test_times_with_an_offset_are_dropped_alike_where_none_can_be(
    tmp_path: Path, kind: pa.DataType, beyond: list[int]
) -> None:
    rows = [exposure(f"v{at}", "u", "a", time) for at, time in enumerate([0, 60, 120, 180, *beyond])]
    write_rows(tmp_path / "exposures.parquet", rows, {"time": kind})
    report = same(write_spec(tmp_path, exposures={**EXPOSURES, "time": {"column": "time", "offset": NOON}}))
    assert sum(report.counts["impressions"]["dropped"].values()) == len(beyond)


def test_a_dataset_grows_the_same_with_both_engines(tmp_path: Path) -> None:
    spec = a_log(tmp_path, 3, ".parquet")
    build(write_spec(tmp_path, **spec), "old")
    spec = a_log(tmp_path, 4, ".parquet")
    path = write_spec(tmp_path, **spec)
    for engine in ("duckdb", "spark"):
        build(path, engine, engine=engine, extends=tmp_path / "old")
    assert contents(tmp_path / "spark") == contents(tmp_path / "duckdb")


def test_broken_lines_are_counted(tmp_path: Path) -> None:
    rows = [exposure(f"v{at // 4}", f"u{at // 4}", f"i{at}", NOON + at // 4, slot=at % 4) for at in range(100)]
    path = write_rows(tmp_path / "exposures.csv", rows)
    lines = path.read_text().splitlines()
    lines[5], lines[50] = lines[5].replace(",", ";", 1), lines[50] + ",more"
    path.write_text("\n".join(lines) + "\n")
    (tmp_path / "log.yaml").write_text(draft(tmp_path))
    report = same(tmp_path / "log.yaml")
    assert report.counts["impressions"]["dropped"] == {"line of the CSV file is broken": 2}


def test_an_interrupted_build_goes_on(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, **a_log(tmp_path, 1, ".csv"))
    said: list[str] = []

    def stop(line: str) -> None:
        if line.startswith("ids counted"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(spec, "spark", engine="spark", say=stop)
    report = build(spec, "spark", engine="spark", say=said.append)
    assert "done before the interruption" in next(line for line in said if line.startswith("ids counted"))
    whole = build(spec, "duckdb")
    assert contents(tmp_path / "spark") == contents(tmp_path / "duckdb") and report.counts == whole.counts


def test_a_float_that_is_no_id_ends_a_build_with_the_same_words(tmp_path: Path) -> None:
    rows = [{**exposure("v", "u", at, NOON), "user": 1.0} for at in range(3)]
    write_rows(tmp_path / "exposures.parquet", [*rows, {**rows[0], "user": 2.5}])
    with pytest.raises(DataError, match=r"^[^ ]*exposures.parquet: column user: 2.5 is no id for exposures.user: "):
        build(write_spec(tmp_path), engine="spark")


def test_a_quote_that_swallows_the_rest_of_a_file_is_refused(tmp_path: Path) -> None:
    rows = [{**exposure(f"v{at}", "u", "a", NOON + at), "note": "-" * 99} for at in range(200)]
    rows[9]["note"] = '"5 inch'
    text = "\n".join(",".join(map(str, row)) for row in (rows[0], *(row.values() for row in rows)))
    (tmp_path / "exposures.csv").write_text(f"{text}\n")
    keys = {**EXPOSURES, "files": "exposures.csv", "time": {"column": "time", "unit": "s"}}
    with pytest.raises(DataError, match=r"exposures.csv: .*: a quote begins here"):
        build(write_spec(tmp_path, exposures=keys), engine="spark")
