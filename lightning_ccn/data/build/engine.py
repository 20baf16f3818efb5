"""What an engine does for a build: it reads files, runs SQL, and streams rows out.

All SQL of a build is written once, in DuckDB's dialect, and every order in it is stated down to the last tie: two
engines, or two orders of the input, give the same rows. What no two engines write alike is a method here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from lightning_ccn.data.build.log_files import LogFiles
from lightning_ccn.errors import DataError

LONGEST = 10_000  # characters that DuckDB keeps of a broken line
FILE, ROW, PLACE, UNEQUAL = "_file", "_row", "_place", "_unequal"  # columns that `read` adds


class Engine(Protocol):
    """Runs the SQL of a build. Names of tables are the caller's; all are gone after `close`."""

    def read(self, name: str, files: LogFiles, lists: tuple[str, ...] = ()) -> None:
        """Makes a view of files.

        Args:
            name: Name of the view. It has the columns of the files, `_file` (the path) and `_row` (the number of the
                row in a Parquet file, from 0; null in a CSV file).
            files: The files.
            lists: List columns of which each value becomes a row, together; the view has `_place`, the place in the
                list, from 0, and `_unequal`, whether lists of the row have unequal lengths (a list that is null has
                none). A list that is shorter than another of its row is filled up with nulls. A row without a value in
                any of them stays one row, whose `_place` is null.
        """

    def broken(self, name: str) -> list[tuple[str, int, int, str]]:
        """The lines of CSV files that were left out when a view was read: path, line, number of lines, why.

        Args:
            name: A view of files, of which one table was made.

        Raises:
            DataError: A quote swallowed so many lines that nobody knows how many.
        """

    def micros(self, value: str, kind: str, zone: str | None) -> str:
        """An expression for the microseconds since 1970 of a date or timestamp; null if a text is no date.

        Args:
            value: Expression for the value.
            kind: `text`, `date`, `timestamp` or `instant`.
            zone: Zone of times without one; None: UTC. A text may have one of its own.
        """

    def different(self, values: str) -> str:
        """An expression for the number of different values of a list, without nulls; null if there is no list.

        Args:
            values: Expression for the list.
        """

    def fail(self, text: str) -> str:
        """An expression that ends the build with a `DataError`, where it is evaluated.

        Args:
            text: Expression for the message.
        """

    def apart(self, query: str, column: str, separator: str | None) -> str:
        """A query in which each value of a list column is a row, with `_place` in the list, from 0.

        Args:
            query: A query.
            column: A list column of it; with a separator, a text column.
            separator: Text between the values.
        """

    def file(self, path: Path) -> str:
        """A query for the rows of a Parquet file that this build has written."""

    def table(self, name: str, query: str) -> int:
        """Makes a table of a query's rows; returns their number."""

    def number(self, name: str, query: str, order: str, column: str) -> int:
        """Like `table`, with a further column that numbers the rows from 1 in an order without ties."""

    def known(self, name: str) -> None:
        """Tells that an earlier process has made a table; nothing if it was dropped since."""

    def view(self, name: str, query: str) -> None:
        """Makes a view."""

    def drop(self, *names: str) -> None:
        """Removes tables, so that their place on the disk is used again; nothing for one that is gone."""

    def rows(self, query: str) -> list[dict[str, Any]]:
        """The rows of a query that has few."""

    def stream(self, query: str) -> Iterator[pa.RecordBatch]:
        """The rows of a query in its order, in batches; several streams may be open."""

    def close(self) -> None:
        """Ends the engine and removes what it wrote."""


def quoted(name: str) -> str:
    """A column's name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def has_zone(value: str, kind: str) -> str:
    """A condition: the text of a time has a zone of its own, as 18:30:00Z, 18:30+01:00 and 18:30 Europe/Rome have."""
    return f"REGEXP_MATCHES({value}, ':.*[A-Za-z+-]')" if kind == "text" else "FALSE"


def refuse_long(where: str, lines: int, length: int) -> None:
    """Refuses a broken line of a CSV file that goes on over many lines: engines keep only its beginning.

    Raises:
        DataError: It is of several lines, and too long for these to be counted.
    """
    if lines > 1 and length >= LONGEST:
        raise DataError(
            f"{where}: a quote begins here, and no line after it can be told from its text; close it, write two quotes "
            "for one in a text, or write Parquet"
        )


def columns(expressions: Mapping[str, str]) -> str:
    """A list of expressions and their names for SELECT."""
    return ", ".join(f"{expression} AS {name}" for name, expression in expressions.items())
