"""Every kind of bad value is rejected with its file, row, column and remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.check.check import check
from lightning_ccn.data.columns import page_columns
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.parquet import decode, list_column, open_part, value_column
from lightning_ccn.data.rules import check_columns, check_rows, read_items
from lightning_ccn.errors import DataError
from tests.data.stats import accept_changes

Columns = dict[str, list]
Edit = Callable[..., Path]
ROW = 57  # in the sixth row group of an edited part: row numbers must count from the start of the file


def longest(columns: Columns, name: str) -> int:
    """A row with several values."""
    return max(range(len(columns[name])), key=lambda row: len(columns[name][row]))


def click_2(columns: Columns) -> str:
    columns["clicks"][ROW][0] = 2
    return f"row {ROW}, column clicks: 2 is neither 0 nor 1; write 0 or 1"


def null_click(columns: Columns) -> str:
    columns["clicks"][ROW][0] = None
    return f"row {ROW}, column clicks: null; write a value (0 for an unknown id)"


def item_outside_its_table(columns: Columns) -> str:
    columns["items"][ROW][0] = 61
    return (
        f"row {ROW}, column items: 61 is not a row of table 'item' (0 to 60); "
        "write 0 for an unknown id; if the table grew, correct tables.item.rows of the schema"
    )


def negative_user(columns: Columns) -> str:
    columns["user"][ROW] = -1
    return f"row {ROW}, column user: -1 is not a row of table 'user' (0 to 40); write 0 for an unknown id"


def null_trigger(columns: Columns) -> str:
    columns["trigger"][ROW] = None
    return f"row {ROW}, column trigger: null; write a value"


def profile_list_outside_its_table(columns: Columns) -> str:
    columns["interests"][ROW] = [1, 2, 6]
    return f"row {ROW}, column interests: 6 is not a row of table 'category' (0 to 5)"


def behaviour_outside_its_table(columns: Columns) -> str:
    row = longest(columns, "long_items")
    columns["long_items"][row][-1] = 10**12
    return f"row {row}, column long_items: 1000000000000 is not a row of table 'item' (0 to 60)"


def fewer_clicks_than_items(columns: Columns) -> str:
    columns["items"][ROW], columns["price"][ROW] = [1, 2, 3], [1.0, 2.0, 3.0]
    columns["clicks"][ROW] = [0, 1]
    return f"row {ROW}, column clicks: 2 values, but column items has 3; give both lists the same length"


def fewer_numbers_than_items(columns: Columns) -> str:
    columns["price"][ROW] = []
    count = len(columns["items"][ROW])
    return f"row {ROW}, column price: 0 values, but column items has {count}; give both lists the same length"


def infinite_number(columns: Columns) -> str:
    columns["price"][ROW][0] = float("inf")
    return f"row {ROW}, column price: inf is not finite, or beyond 1e+30; write NaN or null for an unknown number"


def number_that_means_missing(columns: Columns) -> str:
    columns["price"][ROW][0] = -3.4028234663852886e38  # FLT_MAX, many systems' word for "missing"
    return f"row {ROW}, column price: -3.4028234663852886e+38 is not finite, or beyond 1e+30; write NaN or null for an"


SEEN_BY_THE_READER = [
    click_2,
    null_click,
    item_outside_its_table,
    negative_user,
    null_trigger,
    profile_list_outside_its_table,
    behaviour_outside_its_table,
    fewer_clicks_than_items,
    fewer_numbers_than_items,
    infinite_number,
    number_that_means_missing,
]


def fewer_behaviour_times(columns: Columns) -> str:
    row = longest(columns, "short_items")
    columns["short_times"][row].pop()
    count = len(columns["short_items"][row])
    return f"row {row}, column short_times: {count - 1} values, but column short_items has {count}"


def behaviours_out_of_order(columns: Columns) -> str:
    row = longest(columns, "long_times")
    times = columns["long_times"][row]
    times[0], times[1] = 200, 100
    return f"row {row}, column long_times: 100 follows 200; sort behaviours by time, oldest first"


def behaviour_after_the_page(columns: Columns) -> str:
    row = longest(columns, "short_times")
    late = columns["time"][row] + 1
    columns["short_times"][row][-1] = late
    return (
        f"row {row}, column short_times: {late} is later than the page's time, {late - 1}; "
        "leave it out, or the model would see the future"
    )


def time_in_milliseconds(columns: Columns) -> str:
    columns["time"][ROW] *= 1000
    return (
        f"row {ROW}, column time: {columns['time'][ROW]} is not a time; "
        "write seconds since 1970 (milliseconds: divide by 1000)"
    )


def null_page_id(columns: Columns) -> str:
    columns["page_id"][ROW] = None
    return f"row {ROW}, column page_id: null; write a value"


SEEN_BY_THE_CHECK = [
    fewer_behaviour_times,
    behaviours_out_of_order,
    behaviour_after_the_page,
    time_in_milliseconds,
    null_page_id,
]


@pytest.mark.parametrize("damage", SEEN_BY_THE_READER + SEEN_BY_THE_CHECK)
def test_a_bad_value_is_the_one_error_of_a_check(make_dataset: Edit, edit: Edit, damage: Callable) -> None:
    folder = make_dataset(numbers=("price",))
    expected: list[str] = []
    path = edit(folder, "train", lambda columns: expected.append(damage(columns)))
    report = check(folder)
    assert len(report.errors) == 1
    assert report.errors[0].startswith(f"{path}: {expected[0]}")
    assert report.warnings == []


@pytest.mark.parametrize("damage", SEEN_BY_THE_READER)
def test_a_bad_value_ends_the_decoding_of_its_row_group(make_dataset: Edit, edit: Edit, damage: Callable) -> None:
    folder = make_dataset(numbers=("price",))
    expected: list[str] = []
    path = edit(folder, "train", lambda columns: expected.append(damage(columns)))
    schema = Dataset.open(folder).schema
    bad = int(expected[0].split(",")[0].removeprefix("row ")) // 10
    with open_part(path) as file:
        for group in range(file.num_row_groups):
            rows = decode(file, group, [c.name for c in page_columns(schema) if c.name in file.schema_arrow.names])
            if group == bad:
                with pytest.raises(DataError, match=re.escape(f"{path}: {expected[0]}")):
                    check_rows(schema, rows, path, 10 * group)
            else:
                check_rows(schema, rows, path, 10 * group)


def test_missing_numbers_unknown_ids_and_ties_in_time_are_no_errors(make_dataset: Edit, edit: Edit) -> None:
    def allowed(columns: Columns) -> None:
        columns["price"][ROW][0] = None
        columns["price"][ROW - 1][0] = float("nan")
        columns["user"][ROW] = columns["trigger"][ROW] = columns["items"][ROW][0] = 0
        columns["short_items"][ROW], columns["short_times"][ROW] = [4, 4], [columns["time"][ROW]] * 2
        columns["long_items"][ROW] = columns["long_times"][ROW] = columns["interests"][ROW] = None

    folder = make_dataset(numbers=("price",))
    edit(folder, "train", allowed)
    check(folder, write_stats=True)
    report = check(folder)
    assert (report.errors, report.warnings) == ([], [])


@pytest.mark.parametrize(
    ("name", "wrong", "expected"),
    [
        ("clicks", None, "column clicks: missing; write it as list<int64>"),
        ("time", None, "column time: missing; write it as int64"),
        ("price", None, "column price: missing; write it as list<float>"),
        ("user", pa.string(), "column user: the type is string; cast it to int64"),
        ("time", pa.timestamp("ms"), "column time: the type is timestamp[ms]; cast it to int64, whole seconds"),
        ("items", pa.list_(pa.float64()), "column items: the type is list<element: double>; cast it to list<int64>"),
        ("interests", pa.list_(pa.uint32()), "column interests: the type is list<element: uint32>; cast it to list"),
    ],
)
def test_a_missing_column_or_a_wrong_type_is_reported_before_any_row_is_read(
    make_dataset: Edit, name: str, wrong: pa.DataType | None, expected: str
) -> None:
    folder = make_dataset(numbers=("price",))
    path = folder / "train" / "part-00000.parquet"
    table = pq.read_table(path)
    at = table.schema.get_field_index(name)
    column = table.column(at)
    table = table.remove_column(at) if wrong is None else table.set_column(at, name, column.cast(wrong))
    # a later part, so that the first one being right is not enough
    second = path.with_name("part-00001.parquet")
    pq.write_table(table.slice(50), second)
    pq.write_table(pq.read_table(path).slice(0, 50), path)

    dataset = Dataset.open(folder)
    needed = [column.name for column in page_columns(dataset.schema) if not column.optional]
    with pytest.raises(DataError, match=re.escape(f"{second}: {expected}")):
        check_columns(dataset, "train", needed)
    check_columns(dataset, "train", [other for other in needed if other != name])  # what is not read may be bad
    check_columns(dataset, "test", needed)

    report = check(folder)
    assert len(report.errors) == 1
    assert report.errors[0].startswith(f"{second}: {expected}")


def test_a_truncated_part_is_named_before_any_row_is_read(make_dataset: Edit) -> None:
    folder = make_dataset()
    path = folder / "test" / "part-00000.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=re.escape(f"{path}: not a complete Parquet file; write it again")):
        check_columns(Dataset.open(folder), "test", ["items"])
    (error,) = check(folder).errors
    assert error.startswith(f"{path}: not a complete Parquet file; write it again")


def test_items_are_read_by_attribute_whatever_the_row_groups(make_dataset: Edit) -> None:
    folder = make_dataset()
    path = folder / "items.parquet"
    table = pq.read_table(path)
    pq.write_table(table.select(["seller", "tags", "item", "category"]), path, row_group_size=7)
    accept_changes(folder)
    items = read_items(Dataset.open(folder))
    assert set(items) == {"category", "seller", "tags"}
    for name in ("category", "seller"):
        values = value_column(items, name)
        assert values.dtype == np.int32
        np.testing.assert_array_equal(values, table.column(name).to_numpy())
    tags = list_column(items, "tags")
    assert tags.values.dtype == np.int32
    assert [part.tolist() for part in np.split(tags.values, tags.offsets[1:-1])] == table.column("tags").to_pylist()


def shuffled(columns: Columns) -> str:
    columns["item"][30], columns["item"][31] = 31, 30
    return "row 30, column item: 31; order the rows by item: 0, 1, 2, ... without gaps"


def attribute_outside_its_table(columns: Columns) -> str:
    columns["category"][30] = 6
    return "row 30, column category: 6 is not a row of table 'category' (0 to 5)"


def null_attribute(columns: Columns) -> str:
    columns["seller"][30] = None
    return "row 30, column seller: null; write a value"


def unknown_item_with_an_attribute(columns: Columns) -> str:
    columns["seller"][0] = 3
    return "row 0, column seller: 3; write 0 in row 0, the unknown item"


def a_tag_outside_its_table(columns: Columns) -> str:
    columns["tags"][30] = [1, 12]
    return "row 30, column tags: 12 is not a row of table 'tag' (0 to 11)"


def a_null_tag(columns: Columns) -> str:
    columns["tags"][30] = [1, None]
    return "row 30, column tags: null; write a value"


def tags_that_are_no_lists(columns: Columns) -> str:
    columns["tags"] = list(range(61))
    return "column tags: the type is int64; cast it to list<int64>"


def unknown_item_with_a_tag(columns: Columns) -> str:
    columns["tags"][0] = [3, 3]
    return "row 0, column tags: 2 values; write an empty list in row 0, the unknown item"


def a_price_of_nothing(columns: Columns) -> str:
    columns["price"][30] = 0.0
    return "row 30, column price: 0.0 is not above 0, or beyond 1e+30; write NaN or null for an unknown number"


def a_price_of_the_unknown_item(columns: Columns) -> str:
    columns["price"][0] = 2.5
    return "row 0, column price: 2.5; write NaN or null in row 0, the unknown item"


def item_too_few(columns: Columns) -> str:
    for values in columns.values():
        values.pop()
    return "60 rows, tables.item.rows in schema.yaml is 61; write one row per item, row 0 for the unknown item"


def no_category(columns: Columns) -> str:
    del columns["category"]
    return "column category: missing; write it as int64"


@pytest.mark.parametrize(
    "damage",
    [
        shuffled,
        attribute_outside_its_table,
        null_attribute,
        unknown_item_with_an_attribute,
        item_too_few,
        no_category,
        a_tag_outside_its_table,
        a_null_tag,
        tags_that_are_no_lists,
        unknown_item_with_a_tag,
        a_price_of_nothing,
        a_price_of_the_unknown_item,
    ],
)
def test_items_that_are_not_one_row_per_item_are_rejected(make_dataset: Edit, damage: Callable) -> None:
    folder = make_dataset(ratio_to_trigger=("price",))
    path = folder / "items.parquet"
    columns = pq.read_table(path).to_pydict()
    expected = f"{path}: {damage(columns)}"
    pq.write_table(pa.table(columns), path, row_group_size=20)
    accept_changes(folder)
    with pytest.raises(DataError, match=re.escape(expected)):
        read_items(Dataset.open(folder))
    assert check(folder).errors[0].startswith(expected)
