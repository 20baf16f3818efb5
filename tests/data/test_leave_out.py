"""A copy that leaves a value of a column out of training: which pages it has, what it counts, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.check.check import check
from lightning_ccn.data.dataset import SPLITS, Dataset
from lightning_ccn.data.leave_out import counts_by_value, is_left_out, leave_out
from lightning_ccn.data.reader import PageBatches
from lightning_ccn.errors import DataError

Make = Callable[..., Path]
Edit = Callable[..., Path]


def pages_of(folder: Path, split: str) -> pa.Table:
    return pq.read_table(folder / split)


@pytest.fixture
def left(make_dataset: Make, edit: Edit, tmp_path: Path) -> tuple[Path, Path]:
    """A dataset whose training part has many row groups, and its copy without city 2."""
    whole = make_dataset(numbers=("price",), page_numbers=("age",))
    edit(whole, "train", lambda columns: None)
    leave_out(whole, tmp_path / "left", column="city", value=2)
    return whole, tmp_path / "left"


def test_training_and_validation_have_all_pages_but_the_values_in_their_order(left: tuple[Path, Path]) -> None:
    whole, copy = left
    for split in ("train", "validation"):
        before = pages_of(whole, split)
        assert 0 < before["city"].to_pylist().count(2) < before.num_rows
        assert pages_of(copy, split).equals(before.filter(pa.compute.not_equal(before["city"], 2)))


def test_test_pages_are_those_of_the_value_alone_which_is_unknown_there(left: tuple[Path, Path]) -> None:
    whole, copy = left
    before, after = pages_of(whole, "test"), pages_of(copy, "test")
    its_own = before.filter(pa.compute.equal(before["city"], 2))
    assert after.num_rows == its_own.num_rows > 0
    assert set(after["city"].to_pylist()) == {0}
    assert after.schema == before.schema
    assert after.drop_columns("city").equals(its_own.drop_columns("city"))


def test_the_copy_is_a_valid_dataset_whose_counts_are_those_of_its_own_pages(left: tuple[Path, Path]) -> None:
    whole, copy = left
    report = check(copy)
    assert report.errors == [], str(report)
    opened, prices = Dataset.open(copy), np.concatenate(pages_of(copy, "train")["price"].to_pylist())
    for split in SPLITS:
        table, counts = pages_of(copy, split), opened.splits[split]
        assert (counts.pages, counts.clicks) == (table.num_rows, sum(map(sum, table["clicks"].to_pylist())))
        assert counts.first_time == min(table["time"].to_pylist())
    assert opened.numbers["price"] == pytest.approx((prices.mean(), prices.std()), rel=1e-5)
    assert opened.numbers != Dataset.open(whole).numbers
    assert (opened.schema, opened.digests) == (Dataset.open(whole).schema, Dataset.open(whole).digests)
    assert (copy / "vectors/image.npy").read_bytes() == (whole / "vectors/image.npy").read_bytes()


def test_small_row_groups_become_one(left: tuple[Path, Path]) -> None:
    before, after = (pq.ParquetFile(folder / "train/part-00000.parquet").num_row_groups for folder in left)
    assert before > 5 and after == 1


def test_no_batch_of_training_has_the_value_and_a_test_batch_has_row_0(left: tuple[Path, Path]) -> None:
    dataset = Dataset.open(left[1])
    found = {}
    for split in ("train", "test"):
        batches = PageBatches(dataset, split, batch_pages=8, short_length=5, long_length=5, lanes=4, seed=None)
        read = [batches[0, step] for step in range(len(batches))]
        found[split] = {int(city) for batch in read for city in batch.user["city"].values()}
    assert found == {"train": {0, 1, 3}, "test": {0}}


def test_pages_are_counted_by_value(make_dataset: Make) -> None:
    folder = make_dataset()
    found = counts_by_value(Dataset.open(folder), "city", most=10)
    assert list(found) == [0, 1, 2, 3]
    for value, counts in found.items():
        for split in SPLITS:
            assert counts.pages[split] == pages_of(folder, split)["city"].to_pylist().count(value)
        rows = [row for row in pages_of(folder, "test").to_pylist() if row["city"] == value]
        assert counts.items == sum(len(row["items"]) for row in rows)
        assert counts.clicks == sum(sum(row["clicks"]) for row in rows)


def test_a_finished_copy_is_known_again_and_one_of_other_pages_is_refused(
    left: tuple[Path, Path], edit: Edit, tmp_path: Path
) -> None:
    whole, copy = left
    assert is_left_out(copy, Dataset.open(whole), "city", 2)
    assert not is_left_out(tmp_path / "nothing", Dataset.open(whole), "city", 2)
    with pytest.raises(
        DataError, match=r"was not made of the pages that .*, without city 3: give the comparison another --output"
    ):
        is_left_out(copy, Dataset.open(whole), "city", 3)
    edit(whole, "validation", lambda columns: columns["time"].sort())
    edit(whole, "validation", lambda columns: columns["trigger"].__setitem__(0, 5))
    with pytest.raises(DataError, match="was not made of the pages"):
        is_left_out(copy, Dataset.open(whole), "city", 2)


def test_a_value_outside_the_table_is_refused_by_row(make_dataset: Make, edit: Edit, tmp_path: Path) -> None:
    folder = make_dataset()
    edit(folder, "train", lambda columns: columns["city"].__setitem__(7, 9))
    for read in (
        lambda: counts_by_value(Dataset.open(folder), "city", most=10),
        lambda: leave_out(folder, tmp_path / "left", column="city", value=1),
    ):
        with pytest.raises(DataError, match="row 7, column city: "):
            read()
    assert not (tmp_path / "left").exists()
