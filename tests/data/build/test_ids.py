"""Which ids get a row, and which row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.build.ids import stride
from lightning_ccn.data.dataset import Dataset
from tests.data.build.raw_logs import (
    EVENTS,
    NOON,
    Row,
    build,
    event,
    exposure,
    four_views,
    pages_of,
    read_pages,
    write_rows,
    write_spec,
)


def test_an_integer_page_id_stays_and_another_is_kept_beside(tmp_path: Path) -> None:
    rows = [{**row, "view": 70 + int(row["view"][1:])} for row in four_views()]
    assert [page["page_id"] for page in pages_of(tmp_path / "whole", rows)] == [70, 71, 72, 73]
    assert not (tmp_path / "whole" / "out" / "page_ids").exists()
    assert [page["page_id"] for page in pages_of(tmp_path / "text", four_views())] == [1, 2, 3, 4]
    kept = {path.stem: pq.read_table(path).to_pylist() for path in (tmp_path / "text" / "out" / "page_ids").iterdir()}
    assert kept["test"] == [{"page_id": 4, "raw_view": "v3"}]
    assert [row["raw_view"] for row in kept["train"]] == ["v0", "v1"]


def dealt(*by_count: str) -> list[str]:
    """The vocabulary of ids, of which the most frequent is the first."""
    rows = dict(
        zip((place * stride(len(by_count)) % len(by_count) for place in range(len(by_count))), by_count, strict=True)
    )
    return [rows[row] for row in range(len(by_count))]


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 5, 6, 64, 97, 100, 5040, 65_536, 99_991])
def test_dealing_reaches_every_row(rows: int) -> None:
    assert sorted(place * stride(rows) % rows for place in range(rows)) == list(range(rows))


@pytest.mark.parametrize("rows", [5000, 65_536, 99_991, 100_000])
@pytest.mark.parametrize("ranks", [2, 8, 24])
def test_every_rank_gets_its_share_of_the_frequent_ids(rows: int, ranks: int) -> None:
    for frequent in (rows // 20, rows // 3):
        places = np.arange(frequent) * stride(rows) % rows
        of_rank = np.bincount(places * ranks // rows, minlength=ranks)
        assert abs(of_rank - frequent / ranks).max() < 10


def test_frequent_ids_are_dealt_over_the_rows_of_the_table(tmp_path: Path) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    # the item "e07" is looked at 8 times, and so on
    told = [event("u0", f"e{at:02}", NOON - 100 + again) for at in range(40) for again in range(at + 1)]
    write_rows(tmp_path / "events.parquet", told)
    spec: Row = {"events": EVENTS, "behaviours": {"long": {"length": 999, "types": ["click"]}}}
    build(write_spec(tmp_path, **spec))
    ids = pq.read_table(tmp_path / "out" / "vocabulary" / "item.parquet")["id"].to_pylist()
    frequent = [row for row, name in enumerate(ids) if name >= "e24" and name.startswith("e")]
    assert len(frequent) == 16
    assert set(np.bincount(np.array(frequent) * 4 // len(ids))) <= {3, 4, 5}


def test_an_id_gets_a_row_if_training_has_it_often_enough(tmp_path: Path) -> None:
    rows = [*four_views(), exposure("v0", "u0", "rare", NOON, entry="i0", slot=7),
            exposure("v3", "u1", "new", NOON + 10_800, entry="i3", slot=7)]  # fmt: skip
    write_rows(tmp_path / "exposures.parquet", rows)
    build(write_spec(tmp_path))
    ids = pq.read_table(tmp_path / "out" / "vocabulary" / "item.parquet")["id"].to_pylist()
    assert ids == dealt("i0", "i1", "rare", "i2", "i3", "new")  # by count in training, then by id
    report = build(write_spec(tmp_path, vocabulary={"item": {"at_least": 2}}), "often")
    assert pq.read_table(tmp_path / "often" / "vocabulary" / "item.parquet")["id"].to_pylist() == ["i0", "i1"]
    assert report.unknown["items"] == {"train": (5, 1), "validation": (2, 0), "test": (3, 1)}
    assert report.unknown["trigger"]["test"] == (1, 1)


def test_behaviours_count_until_validation_begins_and_have_a_row_if_a_page_can_have_them(tmp_path: Path) -> None:
    told = [event("u0", "early", NOON - 1), event("u0", "early", NOON + 1), event("u0", "late", NOON + 7199)]
    told += [
        event("u0", "late", NOON + 7198),
        event("u0", "in validation", NOON + 7200),
        event("u1", "test", NOON + 7201),
    ]
    told += [event("u1", "test", NOON + 7202), event("u0", "unused", NOON + 7200), event("u9", "of nobody", NOON)]
    told += [event("u1", "never", NOON + 7201, "view")]
    write_rows(tmp_path / "exposures.parquet", four_views())
    write_rows(tmp_path / "events.parquet", told)
    spec: Row = {"events": EVENTS, "behaviours": {"long": {"length": 9, "types": ["click"]}}}
    ids = {}
    for out, least in (("all", 0), ("some", 1), ("often", 2)):
        build(write_spec(tmp_path, vocabulary={"item": {"at_least": least}}, **spec), out)
        ids[out] = pq.read_table(tmp_path / out / "vocabulary" / "item.parquet")["id"].to_pylist()
    assert ids["often"] == dealt("i0", "i1", "early", "late")
    assert ids["some"] == ids["often"] and ids["all"] == dealt("i0", "i1", "early", "late", "i2", "i3", "test")


def test_a_hashed_table_has_no_vocabulary_and_equal_rows_for_equal_ids(tmp_path: Path) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    build(write_spec(tmp_path, vocabulary={"user": {"hash": 1000}}))
    schema = Dataset.open(tmp_path / "out").schema
    assert (schema.tables["user"].mapping, schema.tables["user"].rows) == ("hash", 1000)
    assert not (tmp_path / "out" / "vocabulary" / "user.parquet").exists()
    users = [page["user"] for page in read_pages(tmp_path / "out")]
    assert users[0] == users[2] != users[1] == users[3] and 0 not in users


def test_a_dataset_that_extends_another_keeps_its_rows(tmp_path: Path) -> None:
    items = [{"id": f"i{at}", "topic": f"topic {at}"} for at in range(5)]
    write_rows(tmp_path / "items.csv", items)
    of_items = {"files": "items.csv", "item": "id", "attributes": ["topic"]}
    write_rows(tmp_path / "exposures.parquet", four_views())
    build(write_spec(tmp_path, items=of_items))
    later = [{**row, "item": {"i0": "i4"}.get(row["item"], row["item"]), "user": "x"} for row in four_views()]
    write_rows(tmp_path / "exposures.parquet", later)
    write_rows(tmp_path / "items.csv", items[4:])
    build(write_spec(tmp_path, items=of_items), "new", extends=tmp_path / "out")
    for table, new in (("item", ["i4"]), ("user", ["x"]), ("topic", ["topic 4"])):
        ids = [
            pq.read_table(tmp_path / name / "vocabulary" / f"{table}.parquet")["id"].to_pylist()
            for name in ("out", "new")
        ]
        assert ids[1] == ids[0] + new
    old, grown = (pq.read_table(tmp_path / name / "items.parquet").to_pylist() for name in ("out", "new"))
    assert grown[: len(old)] == old and grown[-1]["topic"] == len(ids[1])
