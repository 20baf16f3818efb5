"""The dataset writer: the folder has exactly the given rows, or does not exist."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.check.check import check
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.new_folder import OWNER, part_of
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.schema import Feature, Schema, Table
from lightning_ccn.data.vocabulary import Vocabulary
from lightning_ccn.data.writer import PAGES_PER_ROW_GROUP, ROW_GROUPS_PER_PART, DatasetWriter
from lightning_ccn.errors import DataError

SCHEMA = Schema(
    tables={"item": Table(5), "user": Table(9), "brand": Table(4)},
    user=(Feature("user", "user"),),
    attributes=(Feature("brand", "brand"),),
    numbers=("price",),
)
ITEMS = {"brand": np.array([0, 1, 2, 3, 1])}


def pages(first: int, count: int, clicked: int = 0, price: float = 1.0) -> dict[str, np.ndarray | Ragged]:
    """Pages `first`, `first` + 1, ... of two items each; both items of the first `clicked` pages are clicked."""
    number = first + np.arange(count)
    exposed = Ragged.from_lengths(np.tile([1, 2], count), np.full(count, 2))
    nothing = Ragged.from_lengths(np.zeros(0, np.int64), np.zeros(count, np.int64))
    return {
        "page_id": number,
        "time": number,
        "trigger": number % 5,
        "user": number % 9,
        "items": exposed,
        "clicks": Ragged(np.repeat(np.arange(count) < clicked, 2).astype(np.int8), exposed.offsets),
        "price": Ragged(np.full(2 * count, price), exposed.offsets),
        "short_items": nothing,
        "short_times": nothing,
        "long_items": nothing,
        "long_times": nothing,
    }


def test_ragged_rows_have_the_given_lengths() -> None:
    ragged = Ragged.from_lengths(np.array([7, 8, 9]), np.array([2, 0, 1]))
    assert ragged.offsets.tolist() == [0, 2, 2, 3]
    assert ragged.lengths.tolist() == [2, 0, 1]
    assert Ragged.from_lengths(np.zeros(0), np.zeros(0, np.int64)).offsets.tolist() == [0]


def test_pages_of_many_calls_are_in_order_in_full_row_groups_and_parts(tmp_path: Path) -> None:
    total = PAGES_PER_ROW_GROUP * ROW_GROUPS_PER_PART + 700
    cuts = [0, 1, 2, PAGES_PER_ROW_GROUP, PAGES_PER_ROW_GROUP, 5_000, 20_000, 20_299, total]
    with DatasetWriter(tmp_path / "d", SCHEMA) as writer:
        for first, end in pairwise(cuts):  # one call has no pages at all
            writer.write("train", pages(first, end - first))
        folder = writer.close(ITEMS)
    dataset = Dataset.open(folder)
    one, two = dataset.parts("train")
    assert dataset.parts("validation") == dataset.parts("test") == []
    groups = [pq.ParquetFile(part).metadata for part in (one, two)]
    found = [[m.row_group(g).num_rows for g in range(m.num_row_groups)] for m in groups]
    assert found == [[PAGES_PER_ROW_GROUP] * ROW_GROUPS_PER_PART, [PAGES_PER_ROW_GROUP, 188]]
    ids = np.concatenate([pq.read_table(part).column("page_id").to_numpy() for part in (one, two)])
    np.testing.assert_array_equal(ids, np.arange(total))


def test_values_come_back_as_they_went_in(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "d", SCHEMA) as writer:
        writer.write("test", pages(100, 3, clicked=1))
        folder = writer.close(ITEMS)
    table = pq.read_table(folder / "test" / "part-00000.parquet")
    assert table.column("user").to_pylist() == [1, 2, 3]
    assert table.column("items").to_pylist() == [[1, 2]] * 3
    assert table.column("clicks").to_pylist() == [[1, 1], [0, 0], [0, 0]]
    assert table.column("long_items").to_pylist() == [[], [], []]
    items = pq.read_table(folder / "items.parquet")
    assert items.to_pydict() == {"item": [0, 1, 2, 3, 4], "brand": [0, 1, 2, 3, 1]}


def test_stats_count_every_page_once_and_numbers_over_training_items_that_have_them(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "d", SCHEMA) as writer:
        writer.write("train", pages(1000, 600, clicked=3, price=2.0))
        writer.write("train", pages(10, 200, clicked=200, price=6.0))
        writer.write("train", pages(5000, 50, price=float("nan")))
        writer.write("test", pages(6000, 4, clicked=1, price=1e6))
        folder = writer.close(ITEMS)
    dataset = Dataset.open(folder)
    train, validation, test = (dataset.splits[split] for split in ("train", "validation", "test"))
    assert (train.pages, train.items, train.clicks) == (850, 1700, 406)
    assert (train.first_time, train.last_time) == (10, 5049)
    assert (validation.pages, validation.first_time) == (0, None)
    assert (test.pages, test.items, test.clicks) == (4, 8, 2)
    assert (test.pages_of_two_labels, test.pages_of_two_clicks) == (0, 1)
    assert dataset.numbers["price"] == pytest.approx((3.0, np.std([2.0] * 1200 + [6.0] * 400)))


def test_stats_count_the_pages_that_have_what_systems_use(dataset: Path) -> None:
    for split, stats in Dataset.open(dataset).splits.items():
        found = [page for path in dataset.glob(f"{split}/*.parquet") for page in pq.read_table(path).to_pylist()]
        clicks = [sum(page["clicks"]) for page in found]
        with_trigger = sum(page["trigger"] != 0 for page in found)
        with_short, with_long = (sum(bool(page[name]) for page in found) for name in ("short_items", "long_items"))
        two_labels = sum(0 < n < len(page["clicks"]) for n, page in zip(clicks, found, strict=True))
        two_clicks = sum(n > 1 for n in clicks)
        assert stats.pages_with_trigger == with_trigger > 0
        assert (stats.pages_with_short, stats.pages_with_long) == (with_short, with_long)
        assert (stats.pages_of_two_labels, stats.pages_of_two_clicks) == (two_labels, two_clicks)
        assert 0 < with_short < stats.pages and 0 < with_long < stats.pages  # or the counts would show nothing
        assert 0 < two_clicks < two_labels < stats.pages
        assert stats.missing_inputs == {}


def test_a_number_that_never_varies_or_is_never_there_scales_by_one(tmp_path: Path) -> None:
    for name, price in {"constant": 7.0, "absent": float("nan")}.items():
        with DatasetWriter(tmp_path / name, SCHEMA) as writer:
            writer.write("train", pages(0, 10, price=price))
            writer.close(ITEMS)
    assert Dataset.open(tmp_path / "constant").numbers["price"] == (7.0, 1.0)
    assert Dataset.open(tmp_path / "absent").numbers["price"] == (0.0, 1.0)


def test_tables_may_grow_while_writing(tmp_path: Path) -> None:
    users = Vocabulary()
    with DatasetWriter(tmp_path / "d", SCHEMA) as writer:
        writer.write("train", pages(0, 20))
        users.extend(np.arange(100, 112))
        tables = {**SCHEMA.tables, "user": Table(len(users))}
        grown = Schema(tables, SCHEMA.user, SCHEMA.attributes, SCHEMA.numbers)
        folder = writer.close(ITEMS, {"user": users}, schema=grown, extra={"world.yaml": "seed: 3\n"})
    dataset = Dataset.open(folder)
    assert dataset.schema == grown
    assert dataset.digests == {"user": users.digest()}
    assert Vocabulary.load(folder / "vocabulary" / "user.parquet").ids.equals(users.ids)
    assert (folder / "world.yaml").read_text() == "seed: 3\n"
    assert check(folder).errors == []


def test_nothing_has_the_folders_name_before_it_is_whole(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "d", SCHEMA) as writer:
        writer.write("train", pages(0, 600))
        assert not (tmp_path / "d").exists()
        writer.close(ITEMS)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["d"]
    assert json.loads((tmp_path / "d" / "stats.json").read_text())["splits"]["train"]["pages"] == 600


def test_an_exception_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupted() -> None:
        with DatasetWriter(tmp_path / "d", SCHEMA) as writer:
            writer.write("train", pages(0, 600))
            raise RuntimeError("the log ended early")

    def closed_without_brands() -> None:
        with DatasetWriter(tmp_path / "d", SCHEMA) as writer:
            writer.write("train", pages(0, 600))
            writer.close({})

    with pytest.raises(RuntimeError, match="the log ended early"):
        interrupted()
    with pytest.raises(KeyError, match="brand"):
        closed_without_brands()
    assert list(tmp_path.iterdir()) == []


def test_leaving_without_closing_leaves_nothing_behind(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "d", SCHEMA) as writer:
        writer.write("train", pages(0, 600))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_written_over(tmp_path: Path) -> None:
    left = part_of(tmp_path / "d")
    (left / "train").mkdir(parents=True)
    (left / OWNER).touch()
    (left / "train" / "part-00007.parquet").write_bytes(b"half")
    with DatasetWriter(tmp_path / "d", SCHEMA) as writer:
        writer.write("train", pages(0, 10))
        folder = writer.close(ITEMS)
    assert [part.name for part in Dataset.open(folder).parts("train")] == ["part-00000.parquet"]


@pytest.mark.parametrize("name", ["d.part", ".d.part"])
def test_a_folder_of_somebody_else_beside_it_is_left_alone(name: str, tmp_path: Path) -> None:
    notes = tmp_path / name / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("mine")
    if name == part_of(tmp_path / "d").name:
        with pytest.raises(DataError, match=rf"{name}: move it away; .*/d is first written there"):
            DatasetWriter(tmp_path / "d", SCHEMA)
    else:
        with DatasetWriter(tmp_path / "d", SCHEMA) as writer:
            writer.write("train", pages(0, 10))
            writer.close(ITEMS)
    assert notes.read_text() == "mine"


def test_a_folder_that_is_not_empty_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    (tmp_path / "file").touch()
    for name, what in (("full", "exists and is not empty"), ("file", "is a file, and a folder is to be made there")):
        with pytest.raises(DataError, match=rf"{name}: {what}; choose another folder$"):
            DatasetWriter(tmp_path / name, SCHEMA)
    (tmp_path / "empty").mkdir()
    with DatasetWriter(tmp_path / "empty", SCHEMA) as writer:
        writer.write("train", pages(0, 10))
        assert Dataset.open(writer.close(ITEMS)).splits["train"].pages == 10
