"""Ids of the log where rows belong are told from a table that has grown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.check.check import check

Columns = dict[str, list]
Edit = Callable[..., Path]


def test_ids_of_the_log_are_counted_with_an_example_and_the_remedy(make_dataset: Edit, edit: Edit) -> None:
    def raw(columns: Columns) -> None:
        for row in range(50, 96):
            columns["items"][row] = [7_000_000 + item for item in columns["items"][row]]

    folder = make_dataset()
    path = edit(folder, "train", raw)
    items = pq.read_table(path).column("items").to_pylist()
    assert [error for error in check(folder).errors if "far beyond" in error] == [
        f"{path}: row 50, column items: {items[50][0]} is far beyond the 61 rows of table 'item', as are "
        f"{sum(map(len, items[50:]))} of {sum(map(len, items))} ids of this column in train/; if they are the log's "
        "own, write the row of each instead, its place in vocabulary/item.parquet counted from 1"
    ]


@pytest.mark.parametrize(("pages", "wrong"), [(20, 5), (200, 15)])  # few ids; many ids, but a small share
def test_some_wrong_ids_are_no_log(make_dataset: Edit, edit: Edit, pages: int, wrong: int) -> None:
    folder = make_dataset(pages={"train": pages, "validation": 20, "test": 20})
    edit(folder, "train", lambda columns: columns["user"].__setitem__(slice(wrong), [10**6] * wrong))
    errors = check(folder).errors
    assert len(errors) == wrong
    assert all("column user: 1000000 is not a row of table" in error for error in errors)


def test_a_single_wrong_id_has_a_line_of_its_own_alone(make_dataset: Edit, edit: Edit) -> None:
    folder = make_dataset()
    path = edit(folder, "train", lambda columns: columns["user"].__setitem__(30, 10**12))
    (error,) = check(folder).errors
    assert error.startswith(f"{path}: row 30, column user: 1000000000000 is not a row of table 'user' (0 to 40)")


def test_ids_just_beyond_their_table_are_not_far(make_dataset: Edit, edit: Edit) -> None:
    folder = make_dataset()
    edit(folder, "train", lambda columns: columns.update(user=[41] * 96))
    errors = check(folder).errors
    assert len(errors) == 21
    assert "column user: 41 is not a row of table 'user' (0 to 40)" in errors[0]
    assert errors[20] == "... and 76 more like the last one"
