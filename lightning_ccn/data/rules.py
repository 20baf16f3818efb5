"""The rules for columns and values: the reader raises at the first violation, `ccn data check` lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lightning_ccn.data import page_row
from lightning_ccn.data.columns import LARGEST, Column, item_columns, page_columns
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.parquet import FILES_AT_ONCE, NULL, PageRows, decode, open_part, value_column
from lightning_ccn.data.places import Place
from lightning_ccn.data.ragged import Ragged, joined_rows
from lightning_ccn.data.schema import Schema
from lightning_ccn.errors import DataError

SHOWN = 20  # how many violations of one rule are written out; the rest are counted


@dataclass(frozen=True)
class Problem:
    """The values of one column that violate one rule, in one row group.

    Attributes:
        column: Name of the column.
        rows: Int64, the rows of the first `SHOWN` violations within the row group.
        found: What was found there, one text per row of `rows`.
        count: Number of violations.
        remedy: How to fix them.
    """

    column: str
    rows: np.ndarray
    found: list[str]
    count: int
    remedy: str

    def messages(self, path: Place, first_row: int) -> list[str]:
        """One line per row of `rows`; `first_row` is the number of the row group's first row in the file."""
        return [
            f"{path}: row {first_row + row}, column {self.column}: {found}; {self.remedy}"
            for row, found in zip(self.rows, self.found, strict=True)
        ]


def check_columns(dataset: Dataset, split: str, columns: Sequence[str]) -> list[list[int]]:
    """Checks that a split's files have these columns, by their footers alone.

    Returns:
        By file, the number of rows of each of its row groups.

    Raises:
        DataError: A file is truncated, or a column is missing or has a wrong type.
    """
    wanted = [column for column in page_columns(dataset.schema) if column.name in columns]

    def rows_of(path: Place) -> list[int]:
        with open_part(path) as file:
            for message in type_problems(wanted, file.schema_arrow, path):
                raise DataError(message)
            return [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]

    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        return list(pool.map(rows_of, dataset.parts(split)))


def check_rows(schema: Schema, rows: PageRows, path: Place, first_row: int) -> None:
    """Checks the values of one decoded row group.

    Args:
        schema: Schema of the dataset.
        rows: The row group, as `decode` returns it. Columns may be missing.
        path: The file, for the message.
        first_row: Number of the row group's first row in the file, for the message.

    Raises:
        DataError: An id is outside its table, lists have unequal lengths, a click is not 0 or 1, a value is null, ...
    """
    for problem in row_problems(schema, page_columns(schema), rows):
        raise DataError(problem.messages(path, first_row)[0])


def read_items(dataset: Dataset) -> dict[str, np.ndarray | Ragged]:
    """The columns of items.parquet by name, [rows of the item table] each.

    Attributes are int32, those with many values a `Ragged` of these, and numbers are float32, NaN where unknown.

    Raises:
        DataError: items.parquet does not have one row per item in order, or a value is outside its table.
    """
    items, problems = scan_items(dataset.folder / "items.parquet", dataset.schema)
    for message in problems:
        raise DataError(message)
    return items


def scan_items(path: Place, schema: Schema) -> tuple[dict[str, np.ndarray | Ragged], list[str]]:
    """Reads items.parquet: the attributes as `read_items` returns them, and one message per problem."""
    if path.is_dir():
        return {}, [f"{path}: is a folder, as Spark writes; order it by item and replace it by its only part"]
    columns, expected = item_columns(schema), schema.tables[page_row.ITEM].rows
    with open_part(path, copied=True) as file:
        problems = type_problems(columns, file.schema_arrow, path)
        if file.metadata.num_rows != expected:
            problems.append(
                f"{path}: {file.metadata.num_rows} rows, tables.item.rows in schema.yaml is {expected}; "
                "write one row per item, row 0 for the unknown item, or correct the schema"
            )
        if problems:
            return {}, problems
        whole = {
            column.name: np.zeros(expected, dtype=np.float32 if column.holds == "amount" else np.int32)
            for column in columns
            if not column.many
        }
        lists: dict[str, list[Ragged]] = {column.name: [] for column in columns if column.many}
        first = 0
        for group in range(file.num_row_groups):
            rows = decode(file, group, [column.name for column in columns])
            for problem in (*row_problems(schema, columns, rows), *_item_problems(columns, rows, first)):
                problems += problem.messages(path, first)
            size = file.metadata.row_group(group).num_rows
            for name, values in rows.items():
                if isinstance(values, Ragged):
                    lists[name].append(Ragged(values.values.astype(np.int32), values.offsets))
                else:
                    whole[name][first : first + size] = values
            first += size
    items: dict[str, np.ndarray | Ragged] = {**whole, **{name: joined_rows(parts) for name, parts in lists.items()}}
    del items[page_row.ITEM]
    return items, problems


def type_problems(columns: Sequence[Column], stored: pa.Schema, path: Place) -> list[str]:
    """One line per column that is missing from a Parquet file, is there twice, or has a wrong type there."""
    found = []
    for column in columns:
        count = stored.names.count(column.name)
        if count == 0:
            if not column.optional:
                found.append(f"{path}: column {column.name}: missing; write it as {column.expected_type}")
        elif count > 1:
            found.append(f"{path}: column {column.name}: {count} columns have this name; keep one")
        elif problem := column.type_problem(stored.field(column.name).type):
            found.append(f"{path}: column {column.name}: {problem}")
    return found


def row_problems(schema: Schema, columns: Sequence[Column], rows: PageRows) -> Iterator[Problem]:
    """The problems of one decoded row group; columns that `rows` does not have are skipped."""
    for column in columns:
        if column.name not in rows:
            continue
        stored = rows[column.name]
        yield from _value_problems(schema, column, stored)
        if not isinstance(stored, Ragged):
            continue
        if isinstance(beside := rows.get(column.beside), Ragged):
            yield from _length_problems(column, stored, beside.lengths)
        if column.holds == "time":
            yield from _order_problems(column, stored, rows.get(page_row.TIME))


def _value_problems(schema: Schema, column: Column, stored: np.ndarray | Ragged) -> Iterator[Problem]:
    values = stored.values if isinstance(stored, Ragged) else stored
    null = values == NULL if np.issubdtype(values.dtype, np.integer) else np.zeros(len(values), dtype=bool)
    what, remedy = "", ""
    match column.holds:
        case "id":
            last = schema.tables[column.table].rows - 1
            wrong = (values < 0) | (values > last)
            what = f"is not a row of table '{column.table}' (0 to {last})"
            remedy = f"write 0 for an unknown id; if the table grew, correct tables.{column.table}.rows of the schema"
        case "binary":
            wrong = (values != 0) & (values != 1)
            what, remedy = "is neither 0 nor 1", "write 0 or 1"
        case "time":
            wrong = (values < 0) | (values >= 1 << 32)
            what, remedy = "is not a time", "write seconds since 1970 (milliseconds: divide by 1000)"
        case "number":
            wrong = np.abs(values) > LARGEST  # false for NaN
            what, remedy = f"is not finite, or beyond {LARGEST:g}", "write NaN or null for an unknown number"
        case "amount":
            wrong = (values <= 0) | (values > LARGEST)  # false for NaN
            what, remedy = f"is not above 0, or beyond {LARGEST:g}", "write NaN or null for an unknown number"
        case "position":
            wrong, what, remedy = values < 1, "is not a position", "count from 1, as position_bias of the schema does"
        case "weight":
            wrong = ~((values >= 0) & (values <= LARGEST))
            what, remedy = "is not a weight", f"write a number from 0 to {LARGEST:g}, 1 for an item that counts once"
        case "probability":
            wrong = ~((values >= 0) & (values <= 1))
            what, remedy = "is not a probability", "write a number from 0 to 1"
        case _:
            wrong = null
    if column.holds in ("number", "amount"):
        nothing = f"write the column as {column.expected_type}, in which null is an unknown number"
    else:
        nothing = "write a value (0 for an unknown id)"
    yield from problem_where(column.name, stored, null, lambda at: "null", nothing)
    yield from problem_where(column.name, stored, wrong & ~null, lambda at: f"{values[at]} {what}", remedy)


def _length_problems(column: Column, stored: Ragged, beside: np.ndarray) -> Iterator[Problem]:
    lengths = stored.lengths

    def found(row: int) -> str:
        return f"{lengths[row]} values, but column {column.beside} has {beside[row]}"

    yield from problem_where(column.name, lengths, lengths != beside, found, "give both lists the same length")


def _order_problems(column: Column, times: Ragged, page: np.ndarray | Ragged | None) -> Iterator[Problem]:
    values = times.values
    row = np.repeat(np.arange(len(times.lengths)), times.lengths)
    back = np.zeros(len(values), dtype=bool)
    back[1:] = (values[1:] < values[:-1]) & (row[1:] == row[:-1]) & (values[1:] != NULL)

    def earlier(at: int) -> str:
        return f"{values[at]} follows {values[at - 1]}"

    yield from problem_where(column.name, times, back, earlier, "sort behaviours by time, oldest first")
    if not isinstance(page, np.ndarray):
        return
    page_time = page[row]

    def later(at: int) -> str:
        return f"{values[at]} is later than the page's time, {page_time[at]}"

    late = (values > page_time) & (page_time >= 0)  # else it is the page's time that is wrong, or null
    yield from problem_where(column.name, times, late, later, "leave it out, or the model would see the future")


def _item_problems(columns: Sequence[Column], rows: PageRows, first: int) -> Iterator[Problem]:
    here = np.arange(first, first + len(value_column(rows, page_row.ITEM)))
    for column in columns:
        values = rows[column.name]
        if isinstance(values, Ragged):
            yield from _unknown_with_a_list(column, values.lengths, here)
        elif column.name == page_row.ITEM:
            remedy = "order the rows by item: 0, 1, 2, ... without gaps"
            yield from problem_where(column.name, values, (values != here) & (values != NULL), values.item, remedy)
        elif column.holds == "amount":
            unknown = (here == 0) & ~np.isnan(values)
            yield from problem_where(
                column.name, values, unknown, values.item, "write NaN or null in row 0, the unknown item"
            )
        else:
            unknown = (here == 0) & (values != 0)
            yield from problem_where(column.name, values, unknown, values.item, "write 0 in row 0, the unknown item")


def _unknown_with_a_list(column: Column, lengths: np.ndarray, here: np.ndarray) -> Iterator[Problem]:
    wrong, remedy = (here == 0) & (lengths > 0), "write an empty list in row 0, the unknown item"
    yield from problem_where(column.name, lengths, wrong, lambda at: f"{lengths[at]} values", remedy)


def problem_where(
    column: str,
    stored: np.ndarray | Ragged,
    wrong: np.ndarray,
    found: Callable[[int], object],
    remedy: str,
) -> Iterator[Problem]:
    """The Problem of the values of a column where `wrong` is true, if there are any; `found` says what is there."""
    if not wrong.any():
        return
    places = np.flatnonzero(wrong)
    shown = places[:SHOWN]
    rows = np.searchsorted(stored.offsets, shown, side="right") - 1 if isinstance(stored, Ragged) else shown
    yield Problem(column, rows, [str(found(at)) for at in shown], len(places), remedy)
