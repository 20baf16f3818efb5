"""What `ccn data build` makes of a whole log: splits, files of any kind, memory."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from lightning_ccn.data.dataset import Dataset
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
