"""A page that is in the folder twice, under another id, is found; memory stays within its limit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lightning_ccn.data.check.check import check
from lightning_ccn.data.check.copies import Copies
from lightning_ccn.data.parquet import decode, open_part
from lightning_ccn.data.schema import read_schema

Columns = dict[str, list]
Edit = Callable[..., Path]


def test_a_log_that_was_loaded_twice_is_warned_of(make_dataset: Edit, edit: Edit) -> None:
    def again(columns: Columns) -> None:
        for values in columns.values():
            values += values[40:43]
        columns["page_id"][-3:] = [9_001, 9_002, 9_003]
        columns["items"][-3].reverse()  # in another order: the same page
        columns["clicks"][-3].reverse()

    folder = make_dataset()
    path = edit(folder, "train", again)
    report = check(folder, write_stats=True)
    assert report.errors == []
    assert report.warnings == [
        f"{path}: row 96 has the user, time, trigger and items of row 40 of {path}; of 147 pages, 3 are such copies: "
        "write each page view once"
    ]


def test_a_copy_in_another_split_is_said_to_be_there(make_dataset: Edit) -> None:
    folder = make_dataset()
    path = folder / "test" / "part-00001.parquet"
    train = pq.read_table(folder / "train" / "part-00000.parquet")
    copied = train.slice(7, 1).set_column(0, "page_id", pa.array([9_001]))
    pq.write_table(copied, path)
    (warning,) = check(folder).warnings
    assert warning.startswith(
        f"{path}: row 0 has the user, time, trigger and items of row 7 of {folder}/train/part-00000.parquet, in "
        "another split, train; of 145 pages, 1 are such copies: "
    )


def test_pages_that_differ_in_one_value_are_no_copies(make_dataset: Edit, edit: Edit) -> None:
    def alike(columns: Columns) -> None:
        for values in columns.values():
            values += [values[40]] * 4
        columns["page_id"][-4:] = [9_001, 9_002, 9_003, 9_004]
        columns["user"][-4] = columns["user"][40] % 40 + 1
        columns["time"][-3] += 1
        columns["trigger"][-2] = columns["trigger"][40] % 60 + 1
        columns["items"][-1] = [item % 60 + 1 for item in columns["items"][40]]

    folder = make_dataset()
    edit(folder, "train", alike)
    report = check(folder, write_stats=True)
    assert (report.errors, report.warnings) == ([], [])


def test_of_more_pages_than_are_kept_in_mind_a_sample_is_compared(make_dataset: Edit) -> None:
    folder = make_dataset(pages={"train": 2000, "validation": 20, "test": 20})
    copies = Copies(read_schema(folder), most=256)
    path = folder / "train" / "part-00000.parquet"
    with open_part(path) as file:
        for first in (0, 2000):  # all pages, twice
            rows_before = first
            for group in range(file.num_row_groups):
                copies.add("train", path, rows_before, decode(file, group, file.schema_arrow.names))
                rows_before += file.metadata.row_group(group).num_rows
    (warning,) = copies.warnings()
    sampled = int(warning.partition("; of ")[2].partition(" pages")[0])
    assert 64 < sampled <= 256
    assert f" pages (a sample of 4,000), {sampled // 2} are such copies" in warning
