"""Cut long sequences: batches are those of the whole sequences, to the bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.check.check import check
from lightning_ccn.data.cut import LongCut
from lightning_ccn.data.cut_folder import cut_folder
from lightning_ccn.data.dataset import SPLITS, Dataset
from lightning_ccn.data.padding import Places
from lightning_ccn.data.parquet import parts_of
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.reader import PageBatches
from lightning_ccn.data.schema import Feature, Schema, Table
from lightning_ccn.data.world import WorldConfig
from lightning_ccn.data.world.generate import generate
from lightning_ccn.data.writer import PAGES_PER_ROW_GROUP, DatasetWriter
from lightning_ccn.errors import OptionError

ITEMS, CATEGORIES = 40, 5
SCHEMA = Schema(
    tables={"item": Table(ITEMS), "category": Table(CATEGORIES)},
    user=(),
    attributes=(Feature("category", "category"),),
    category="category",
)
OF_ITEM = np.random.default_rng(9).integers(0, CATEGORIES, ITEMS)  # some items are of unknown category
OF_ITEM[0] = 0


def pages(first: int, count: int) -> dict[str, np.ndarray | Ragged]:
    """Pages with unknown items and triggers, some without items, some without behaviours."""
    rng = np.random.default_rng(first)

    def lists(most: int) -> Ragged:
        lengths = rng.integers(0, most + 1, count)
        return Ragged.from_lengths(rng.integers(0, ITEMS, lengths.sum()), lengths)

    exposed, short, long = lists(5), lists(4), lists(50)
    return {
        "page_id": first + np.arange(count),
        "time": 1_000_000 + first + np.arange(count),
        "trigger": rng.integers(0, ITEMS, count),
        "items": exposed,
        "clicks": Ragged(rng.integers(0, 2, len(exposed.values)).astype(np.int8), exposed.offsets),
        "short_items": short,
        "short_times": Ragged(np.zeros_like(short.values), short.offsets),
        "long_items": long,
        "long_times": Ragged(np.arange(len(long.values)), long.offsets),
    }


def write(folder: Path, schema: Schema = SCHEMA, early: bool = False, train: int = 300) -> Path:
    items = {"category": OF_ITEM}
    with DatasetWriter(folder, schema, items if early else None) as writer:
        for split, first, count in (("train", 0, train), ("validation", 5_000, 40), ("test", 6_000, 40)):
            writer.write(split, pages(first, count))
        return writer.close(items)


def batches(folder: Path, split: str, long_length: int) -> Iterator[PageBatch]:
    """All batches of an epoch, shuffled as in training."""
    options: dict[str, Any] = {"short_length": 3, "batch_pages": 32, "seed": 3 if split == "train" else None}
    found = PageBatches(Dataset.open(folder), split, long_length=long_length, **options)
    return (found[1, step] for step in range(len(found)))


def plain(batch: PageBatch) -> dict[str, int]:
    """All that is not a tensor."""
    found: dict[str, int] = {}
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Places):
            found |= {f"{field.name}.segments": value.segments, f"{field.name}.longest": value.longest}
        elif isinstance(value, int):
            found[field.name] = value
    return found


def assert_equal_batches(one: Path, other: Path, long_length: int) -> None:
    found = 0
    for split in SPLITS:
        for a, b in zip(batches(one, split, long_length), batches(other, split, long_length), strict=True):
            left, right = a.tensors(), b.tensors()
            assert [(t.dtype, t.shape) for t in left] == [(t.dtype, t.shape) for t in right]
            assert all(map(torch.equal, left, right))
            assert plain(a) == plain(b)
            found += a.long.numel()
    assert found > 0


def test_a_reader_of_more_than_the_cut_is_refused(tmp_path: Path) -> None:
    cut = write(tmp_path / "cut", replace(SCHEMA, cut_long_length=3))
    with pytest.raises(OptionError, match=r"^data\.long_length is 4, but .* make it 3 or less"):
        batches(cut, "train", 4)


def columns(folder: Path, name: str) -> list[list[int]]:
    return [row for path in sorted(folder.rglob("part-*.parquet")) for row in pq.read_table(path)[name].to_pylist()]


def test_every_tensor_of_a_batch_is_that_of_the_whole_sequences(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole")
    cut_folder(whole, tmp_path / "cut", long_length=4)
    for long_length in (1, 3, 4):
        assert_equal_batches(whole, tmp_path / "cut", long_length)
    assert sum(map(len, columns(tmp_path / "cut", "long_items"))) < sum(map(len, columns(whole, "long_items"))) / 2


def test_without_a_category_a_page_keeps_its_most_recent_behaviours(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", Schema(SCHEMA.tables, (), SCHEMA.attributes))
    cut_folder(whole, tmp_path / "cut", long_length=7)
    assert columns(tmp_path / "cut", "long_times") == [times[-7:] for times in columns(whole, "long_times")]
    for long_length in (2, 7):
        assert_equal_batches(whole, tmp_path / "cut", long_length)


def test_a_page_keeps_the_most_recent_behaviours_of_its_categories_in_their_order(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole")
    cut_folder(whole, tmp_path / "cut", long_length=2)
    expected = []
    names = ("items", "trigger", "long_items", "long_times")
    for items, trigger, long_items, long_times in zip(*(columns(whole, name) for name in names), strict=True):
        here = {int(OF_ITEM[item]) for item in (*items, trigger)} - {0}
        of = [[at for at, item in enumerate(long_items) if OF_ITEM[item] == category][-2:] for category in here]
        kept = sorted(at for places in of for at in places)
        expected.append(([long_items[at] for at in kept], [long_times[at] for at in kept]))
    found = zip(columns(tmp_path / "cut", "long_items"), columns(tmp_path / "cut", "long_times"), strict=True)
    assert list(found) == expected
    for name in set(pages(0, 1)) - {"long_items", "long_times"}:
        assert columns(tmp_path / "cut", name) == columns(whole, name)


@pytest.mark.parametrize("early", [True, False], ids=["while written", "at close"])
def test_a_writer_that_cuts_writes_what_a_cut_of_its_folder_writes(tmp_path: Path, early: bool) -> None:
    train = PAGES_PER_ROW_GROUP + 100
    marked = write(tmp_path / "marked", replace(SCHEMA, cut_long_length=3), early, train)
    cut_folder(write(tmp_path / "whole", train=train), tmp_path / "cut", long_length=3)
    assert_same_folder(marked, tmp_path / "cut")
    assert check(marked).errors == []


def test_a_world_that_is_cut_has_the_pages_of_the_whole_world(tmp_path: Path) -> None:
    counts: dict[str, Any] = {"train_pages": 700, "validation_pages": 30, "test_pages": 30}
    config = WorldConfig(users=60, items=120, categories=6, sellers=4, **counts)
    generate(config, tmp_path / "whole", chunk=256)
    cut_folder(tmp_path / "whole", tmp_path / "cut", long_length=5)
    generate(config, tmp_path / "world", chunk=300, cut_long_length=5)
    assert_same_folder(tmp_path / "world", tmp_path / "cut")
    assert WorldConfig.load(tmp_path / "cut") == WorldConfig.load(tmp_path / "world") == config
    assert_equal_batches(tmp_path / "whole", tmp_path / "world", 5)


def assert_same_folder(one: Path, other: Path) -> None:
    """The same schema, counts, and row groups with the same values and types."""
    a, b = Dataset.open(one), Dataset.open(other)
    assert a.schema.to_yaml() == b.schema.to_yaml()
    assert "cut_long_length" in a.schema.to_yaml()
    assert (a.splits, a.numbers, a.digests) == (b.splits, b.numbers, b.digests)
    for split in SPLITS:
        for left, right in zip(parts_of(one / split), parts_of(other / split), strict=True):
            assert left.relative_to(one) == right.relative_to(other)
            with pq.ParquetFile(left) as x, pq.ParquetFile(right) as y:
                for group in range(x.num_row_groups):
                    assert x.read_row_group(group).equals(y.read_row_group(group))
                assert x.num_row_groups == y.num_row_groups


def test_cutting_rows_leaves_the_other_columns_as_they_are() -> None:
    rows: Mapping[str, Any] = pages(0, 20)
    shorter = LongCut(replace(SCHEMA, cut_long_length=1), {"category": OF_ITEM})(rows)
    assert shorter.keys() == rows.keys()
    assert all(shorter[name] is rows[name] for name in rows if not name.startswith("long_"))
    long = shorter["long_items"]
    assert isinstance(long, Ragged)
    assert 0 < len(long.values) < len(rows["long_items"].values)


def test_a_schema_without_a_mark_cuts_nothing() -> None:
    with pytest.raises(ValueError, match="no cut_long_length"):
        LongCut(SCHEMA, {"category": OF_ITEM})
