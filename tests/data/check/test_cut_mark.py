"""A folder that says that its long sequences are cut has none that are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.check.check import check
from lightning_ccn.data.cut_folder import cut_folder

Make = Callable[..., Path]
MOST = 2


@pytest.fixture
def cut(make_dataset: Make, tmp_path: Path) -> Path:
    cut_folder(make_dataset(), tmp_path / "cut", long_length=MOST)
    return tmp_path / "cut"


def of_category(folder: Path, category: int, absent: bool) -> int:
    """An item of this category; with `absent`, of any other known one."""
    found = pq.read_table(folder / "items.parquet")["category"].to_numpy()
    return int(np.flatnonzero((found != category) & (found != 0) if absent else found == category)[0])


@pytest.mark.parametrize("absent", [False, True], ids=["one too many", "of a category that is not on the page"])
def test_a_behaviour_that_a_cut_would_have_left_out_is_an_error(cut: Path, edit: Make, absent: bool) -> None:
    category = pq.read_table(cut / "items.parquet")["category"].to_pylist()
    rows: list[int] = []

    def add(columns: dict[str, list]) -> None:
        """Gives the first page of a single category other behaviours."""
        pages = zip(columns["items"], columns["trigger"], strict=True)
        here = [{category[item] for item in (*items, trigger)} - {0} for items, trigger in pages]
        row = next(at for at, categories in enumerate(here) if len(categories) == 1)
        item = of_category(cut, here[row].pop(), absent)
        count = 1 if absent else MOST + 1
        columns["long_items"][row], columns["long_times"][row] = [item] * count, [1] * count
        rows.append(row)

    path = edit(cut, "train", add)
    report = check(cut, write_stats=True)
    assert report.errors == [
        f"{path}: row {rows[0]}, column long_items: 1 of {1 if absent else MOST + 1} are of no category of the page, "
        f"or not among the {MOST} most recent ones of theirs; cut_long_length in schema.yaml says that they were left "
        "out; `ccn data cut` leaves them out"
    ]


def test_a_mark_on_a_folder_that_was_not_cut_is_found_in_every_split(make_dataset: Make) -> None:
    folder = make_dataset()
    with open(folder / "schema.yaml", "a") as file:
        file.write("cut_long_length: 1\n")
    errors = check(folder).errors
    for split in ("train", "validation", "test"):
        assert any(f"{split}/part-00000.parquet: row " in error and "`ccn data cut`" in error for error in errors)
    assert any(error.startswith("... and ") for error in errors)


def test_a_bad_item_is_one_error_and_not_two(cut: Path, edit: Make) -> None:
    def damage(columns: dict[str, list]) -> None:
        columns["long_items"][0], columns["long_times"][0] = [999], [1]

    edit(cut, "train", damage)
    (error,) = check(cut, write_stats=True).errors
    assert "999 is not a row of table 'item'" in error
