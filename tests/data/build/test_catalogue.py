"""What a table of items brings: attributes, lists, vectors, numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.build.build_report import BuildReport
from lightning_ccn.data.build.duckdb_engine import DuckDBEngine
from lightning_ccn.data.build.ids import Ids
from lightning_ccn.data.build.spec import AdmissionSpec
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.item_vectors import open_vectors
from lightning_ccn.errors import DataError
from tests.data.build.raw_logs import (
    EXPOSURES,
    NOON,
    Row,
    build,
    contents,
    exposure,
    four_views,
    pages_of,
    write_rows,
    write_spec,
)


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


def test_an_item_that_a_later_log_describes_is_as_it_says_also_where_it_says_nothing(tmp_path: Path) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    tags: Row = {"column": "labels", "name": "tags", "table": "tag"}
    keys: Row = {"files": "items.parquet", "item": "id", "attributes": ["topic", tags], "ratio_to_trigger": ["price"]}
    spec = write_spec(tmp_path, items=keys)
    types = {"topic": pa.string(), "labels": pa.list_(pa.string()), "price": pa.float64()}
    both: list[Row] = [{"id": item, "labels": ["a", "b"], "topic": "x", "price": 2.5} for item in ("i0", "i1")]
    write_rows(tmp_path / "items.parquet", both, types)
    build(spec, "old")
    write_rows(tmp_path / "items.parquet", [{"id": "i1", "labels": [], "topic": None, "price": None}], types)
    build(spec, "new", extends=tmp_path / "old")
    assert {item: tags_of(tmp_path / "new")[item] for item in ("i0", "i1")} == {"i0": ["a", "b"], "i1": []}
    ids = [None, *pq.read_table(tmp_path / "new" / "vocabulary" / "item.parquet")["id"].to_pylist()]
    rows = {ids[row["item"]]: row for row in pq.read_table(tmp_path / "new" / "items.parquet").to_pylist()}
    assert (rows["i0"]["topic"], rows["i0"]["price"]) == (1, 2.5)
    assert rows["i1"]["topic"] == 0 and np.isnan(rows["i1"]["price"])


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


def test_an_older_folder_that_shares_no_user_and_no_item_is_probably_of_another_log(tmp_path: Path) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    build(write_spec(tmp_path), "old")
    old = Dataset.open(tmp_path / "old")
    engine = DuckDBEngine(tmp_path, "1GB", 1, 0)
    found = {}
    for case, (user, item) in {"both": ("u0", "i0"), "one": ("new", "i0"), "none": ("new", "new")}.items():
        ids, report = Ids(engine, tmp_path, old), BuildReport()
        for table, name in (("user", user), ("item", item)):
            ids.add(table, f"rows_{table}", f"SELECT '{name}' AS id, 1 AS n", AdmissionSpec(), True)
        ids.warn_of_another_log(report)
        found[case] = report.warnings
    engine.close()
    assert (found["both"], found["one"]) == ([], [])
    [warning] = found["none"]
    assert warning.startswith(f"{tmp_path / 'old'}: none of its ids in user and item is in this log, so --extends")
