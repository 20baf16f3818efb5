"""Requests in Parquet and CSV files. Needs pyarrow, which a `Scorer` does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from lightning_ccn.errors import DataError
from lightning_ccn.serving.column_values import (
    SEPARATOR,
    FieldError,
    ids_of_decimals,
    ids_of_floats,
    ids_of_texts,
    numbers_of_decimals,
    numbers_of_texts,
    read_csv,
)
from lightning_ccn.serving.manifest import Manifest
from lightning_ccn.serving.request import ITEM, Request
from lightning_ccn.serving.scorer import ORDER

Read = TypeVar("Read")
LISTS = ("items", "short", "long")  # columns of a request that are lists of items
TIME, TIME_LISTS = "time", ("short_times", "long_times")  # those of a model that reads times
WRITTEN = ("item", "probability", "degree")  # columns of the scores
PARQUET, CSV = ".parquet", ".csv"
OTHER_SEPARATORS = (";", "\t")  # between the columns of a CSV file


@dataclass(frozen=True)
class Block:
    """Requests that are scored at a time: a row group of a Parquet file, or a CSV file.

    Attributes:
        file: Path of the file.
        row_group: Number of the row group; None: the file is CSV, or has none.
        size, changed: The file's bytes and its time of change in nanoseconds, by which another file is told.
    """

    file: str
    row_group: int | None
    size: int
    changed: int

    @property
    def is_csv(self) -> bool:
        """Whether the file is CSV."""
        return Path(self.file).suffix == CSV

    @property
    def first_row(self) -> int:
        """The row of the file that the block begins with."""
        about = pq.read_metadata(self.file) if self.row_group else None
        return sum(about.row_group(group).num_rows for group in range(self.row_group or 0)) if about else 0

    def read(self) -> pa.Table:
        """The rows.

        Raises:
            DataError: The file cannot be read, or was changed since the block was made.
        """
        self._refuse_changed()
        if self.is_csv:
            table = _read(Path(self.file), read_csv)
        else:
            groups = [] if self.row_group is None else [self.row_group]
            table = _read(Path(self.file), lambda path: pq.ParquetFile(path).read_row_groups(groups))
        self._refuse_changed()  # while it was read
        return table

    def _refuse_changed(self) -> None:
        about = _read(Path(self.file), Path.stat)
        if (about.st_size, about.st_mtime_ns) != (self.size, self.changed):
            raise DataError(
                f"{self.file}: was changed while it was scored; when it is complete, run the same command again, which "
                "scores it from the beginning"
            )


def blocks_of(requests: Path) -> Iterator[Block]:
    """The blocks of a file, or of all files in a folder, in the order of their names.

    Files and folders whose names begin with a dot or an underscore, such as Spark's `_SUCCESS` and `_temporary`, are
    left out.

    Raises:
        DataError: There is no file, or one is neither Parquet nor CSV.
    """
    if not requests.exists():
        raise DataError(f"{requests}: no such file or folder; name requests in Parquet or CSV")
    files = [requests] if requests.is_file() else _files_in(requests)
    if not files:
        raise DataError(f"{requests}: has no files; name requests in Parquet or CSV")
    for file in files:
        if file.suffix not in (PARQUET, CSV):
            raise DataError(f"{file}: its name ends in neither {PARQUET} nor {CSV}; write requests as one of these")
        about = file.stat()
        count = _read(file, pq.read_metadata).num_row_groups if file.suffix == PARQUET else 0
        for group in range(count) if count else [None]:
            yield Block(str(file), group, about.st_size, about.st_mtime_ns)


def _files_in(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [file for file in files if not any(name.startswith((".", "_")) for name in file.relative_to(folder).parts)]


class RequestColumns:
    """The requests of a block's rows.

    Args:
        block: Where the table was read, for messages.
        table: The rows.
        manifest: Of the package that will score them.

    Attributes:
        copied: Names of columns that are no part of a request.
        items: The candidates of each row.
        item_type: Their type.

    Raises:
        DataError: A column is missing, or of another form.
    """

    def __init__(self, block: Block, table: pa.Table, manifest: Manifest) -> None:
        self._block = block
        self._user = {feature.name: feature for feature in manifest.user}
        self._numbers = [number.name for number in manifest.numbers]
        self._page_numbers = [number.name for number in manifest.page_numbers]
        self._tables = dict.fromkeys((*LISTS, "trigger"), ITEM)
        self._tables |= {name: feature.table for name, feature in self._user.items()}
        self._kinds = {name: entry.kind for name, entry in manifest.tables.items()}
        self._times = (TIME, *TIME_LISTS) if manifest.reads_gaps else ()
        self._check_names(table.column_names)
        written = (*WRITTEN, ORDER) if manifest.gives_orders else WRITTEN
        if taken := [name for name in written if name in table.column_names]:
            raise DataError(
                f"{block.file}: column {taken[0]}: the scores have a column of this name; give it another one"
            )
        known = {*self._tables, *self._times, *self._numbers, *self._page_numbers}
        self.copied = [name for name in table.column_names if name not in known]
        self._values = {name: self._plain(table.column(name), name) for name in table.column_names if name in known}
        self.items = [row or [] for row in self._values["items"]]
        self.item_type = self._item_type(table.schema.field("items").type)

    def request(self, row: int) -> Request:
        """The request of a row; what is null is left out."""

        def given(names: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
            there = {name: self._values[name][row] for name in names if name in self._values}
            return {name: value for name, value in there.items() if value is not None}

        return Request(
            user=given(self._user),
            numbers=given(self._numbers),
            page_numbers=given(self._page_numbers),
            **{"items": [], **given((*LISTS, "trigger", *self._times))},
        )

    def _check_names(self, names: list[str]) -> None:
        if twice := [name for name in names if names.count(name) > 1]:
            raise DataError(f"{self._block.file}: column {twice[0]}: is there twice; leave one out")
        if "items" in names:
            return
        found = f"the columns are {', '.join(names)}"
        if len(names) == 1 and (others := [other for other in OTHER_SEPARATORS if other in names[0]]):
            found = f"the header is {names[0]!r}; write a comma between columns, not {others[0]!r}"
        raise DataError(
            f"{self._block.file}: column items: missing; it has the candidates of each request, and {found}"
        )

    def _plain(self, column: pa.ChunkedArray, name: str) -> list[Any]:
        """The values of a column; ids and times that are text in the file, or floats, as they are in a request."""
        many = name in (*LISTS, *TIME_LISTS, *self._numbers) or (name in self._user and self._user[name].many)
        kind = self._kinds[self._tables[name]] if name in self._tables else None
        kind = "integer" if name in self._times else kind
        try:
            if self._block.is_csv:
                texts = column.to_pylist()
                return numbers_of_texts(texts, many) if kind is None else ids_of_texts(texts, kind, many)
            values = column.to_pylist()
            if pa.types.is_null(column.type):  # as pandas writes a column in which all is missing
                return values
            if (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)) != many:
                form = "a list" if many else "no list"
                raise DataError(f"{self._block.file}: column {name}: is {column.type}, and must be {form}")
            of_one = column.type.value_type if many else column.type
            if pa.types.is_decimal(of_one) and kind != "text":
                return (numbers_of_decimals if kind is None else ids_of_decimals)(values, many)
            if pa.types.is_floating(of_one) and kind not in (None, "text"):
                return ids_of_floats(values, many)
            return values
        except FieldError as error:
            form = f"; write a list as 1{SEPARATOR}2{SEPARATOR}3" if many and self._block.is_csv else ""
            row = self._block.first_row + error.at
            raise DataError(f"{self._block.file}: row {row}: column {name}: {error}{form}") from None

    def _item_type(self, of_column: pa.DataType) -> pa.DataType:
        """One type for all files of a form, so that the scores have one."""
        of_one = pa.null() if self._block.is_csv or pa.types.is_null(of_column) else of_column.value_type
        if pa.types.is_null(of_one):  # CSV, or no candidate at all
            return pa.int64() if self._kinds[ITEM] in ("integer", "row") else pa.string()
        return pa.int64() if pa.types.is_floating(of_one) or pa.types.is_decimal(of_one) else of_one


def _read(file: Path, read: Callable[[Path], Read]) -> Read:
    try:
        return read(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: cannot be read: {' '.join(str(error).split())}; write it again") from None
