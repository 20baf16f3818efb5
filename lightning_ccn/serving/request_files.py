"""Requests in Parquet and CSV files. Needs pyarrow, which a `Scorer` does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from lightning_ccn.errors import DataError
from lightning_ccn.serving.package import Manifest
from lightning_ccn.serving.request import Request

Read = TypeVar("Read")
SEPARATOR = "|"  # between the values of a list in CSV
LISTS = ("items", "short", "long")  # columns of a request that are lists of items
WRITTEN = ("item", "probability", "degree")  # columns of the scores
PARQUET, CSV = ".parquet", ".csv"


@dataclass(frozen=True)
class Block:
    """Requests that are scored at a time: a row group of a Parquet file, or a CSV file.

    Attributes:
        file: Path of the file.
        row_group: Number of the row group; None: the file is CSV.
        size, changed: The file's bytes and its time of change in nanoseconds, by which another file is told.
    """

    file: str
    row_group: int | None
    size: int
    changed: int

    @property
    def first_row(self) -> int:
        """The row of the file that the block begins with."""
        about = pq.read_metadata(self.file) if self.row_group else None
        return sum(about.row_group(group).num_rows for group in range(self.row_group or 0)) if about else 0

    def read(self) -> pa.Table:
        """The rows.

        Raises:
            DataError: The file cannot be read.
        """
        if self.row_group is None:
            return _read(Path(self.file), pyarrow.csv.read_csv)
        return _read(Path(self.file), lambda path: pq.ParquetFile(path).read_row_group(self.row_group))


def blocks_of(requests: Path) -> Iterator[Block]:
    """The blocks of a file, or of all files in a folder, in the order of their names.

    Raises:
        DataError: There is no file, or one is neither Parquet nor CSV.
    """
    if not requests.exists():
        raise DataError(f"{requests}: no such file or folder; name requests in Parquet or CSV")
    files = [requests] if requests.is_file() else sorted(path for path in requests.rglob("*") if path.is_file())
    files = [file for file in files if not file.name.startswith((".", "_"))]
    if not files:
        raise DataError(f"{requests}: has no files; name requests in Parquet or CSV")
    for file in files:
        if file.suffix not in (PARQUET, CSV):
            raise DataError(f"{file}: its name ends in neither {PARQUET} nor {CSV}; write requests as one of these")
        about = file.stat()
        count = _read(file, pq.read_metadata).num_row_groups if file.suffix == PARQUET else None
        for group in [None] if count is None else range(count):
            yield Block(str(file), group, about.st_size, about.st_mtime_ns)


class RequestColumns:
    """The requests of a block's rows.

    Args:
        block: Where the table was read, for messages.
        table: The rows.
        manifest: Of the package that will score them.

    Attributes:
        copied: Names of columns that are no part of a request.
        items: The candidates of each row.

    Raises:
        DataError: A column is missing, or of another form.
    """

    def __init__(self, block: Block, table: pa.Table, manifest: Manifest) -> None:
        self._block = block
        self._user = {feature.name: feature for feature in manifest.user}
        self._numbers = [number.name for number in manifest.numbers]
        self._page_numbers = [number.name for number in manifest.page_numbers]
        self._text = {name for name, feature in self._user.items() if manifest.tables[feature.table].kind == "text"}
        self._text |= {*LISTS, "trigger"} if manifest.tables["item"].kind == "text" else set()
        if "items" not in table.column_names:
            raise DataError(f"{block.file}: column items: missing; it has the candidates of each request")
        if taken := [name for name in WRITTEN if name in table.column_names]:
            raise DataError(
                f"{block.file}: column {taken[0]}: the scores have a column of this name; give it another one"
            )
        known = {*LISTS, "trigger", *self._user, *self._numbers, *self._page_numbers}
        self.copied = [name for name in table.column_names if name not in known]
        self._values = {name: self._plain(table.column(name), name) for name in table.column_names if name in known}
        self.items = [row or [] for row in self._values["items"]]

    def request(self, row: int) -> Request:
        """The request of a row; what is null is left out."""

        def given(names: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
            there = {name: self._values[name][row] for name in names if name in self._values}
            return {name: value for name, value in there.items() if value is not None}

        return Request(
            user=given(self._user),
            numbers=given(self._numbers),
            page_numbers=given(self._page_numbers),
            **{"items": [], **given((*LISTS, "trigger"))},
        )

    def _plain(self, column: pa.ChunkedArray, name: str) -> list[Any]:
        many = name in (*LISTS, *self._numbers) or (name in self._user and self._user[name].many)
        if self._block.row_group is None:
            return self._from_csv(column, name, many)
        if (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)) != many:
            form = "a list" if many else "no list"
            raise DataError(f"{self._block.file}: column {name}: is {column.type}, and must be {form}")
        return column.to_pylist()

    def _from_csv(self, column: pa.ChunkedArray, name: str, many: bool) -> list[Any]:
        if not many and name not in self._text:
            return column.to_pylist()
        texts = column.cast(pa.string()).to_pylist()
        if not many:
            return texts
        kind = str if name in self._text else float if name in self._numbers else int
        try:
            return [[kind(value) for value in text.split(SEPARATOR)] if text else None for text in texts]
        except ValueError as error:
            raise DataError(
                f"{self._block.file}: column {name}: {error}; write a list as 1{SEPARATOR}2{SEPARATOR}3"
            ) from None


def _read(file: Path, read: Callable[[Path], Read]) -> Read:
    try:
        return read(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: cannot be read: {' '.join(str(error).split())}; write it again") from None
