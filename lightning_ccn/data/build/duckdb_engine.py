"""The engine on one machine: DuckDB in this process, which spills to disk beyond its memory limit."""

from __future__ import annotations

import glob
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from lightning_ccn.data.build.engine import FILE, PLACE, ROW, UNEQUAL, has_zone, literal, quoted, refuse_long
from lightning_ccn.data.build.log_files import LogFiles
from lightning_ccn.data.build.store_files import StoreFiles
from lightning_ccn.data.places import Place
from lightning_ccn.data.store_path import StorePath
from lightning_ccn.errors import DataError, OptionError

ROWS_PER_BATCH = 65_536
GROWTH = 20  # bytes of the tables of a build, at most, for each byte of a log's compressed files


class DuckDBEngine:
    """DuckDB with a database in memory, or in a file if the log is large, or if an earlier process has left one.

    Args:
        folder: A folder for its database and for what it spills.
        memory_limit: How much memory DuckDB may use, such as 4GB.
        threads: Number of threads; 0: one per core.
        log_bytes: Size of the log's files.

    Attributes:
        keeps_tables: Whether tables outlive this process.

    Raises:
        OptionError: The limit is not an amount of memory.
    """

    def __init__(self, folder: Path, memory_limit: str, threads: int, log_bytes: int) -> None:
        given = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B", memory_limit)
        if not given:
            raise OptionError(f"memory_limit is {memory_limit!r}: write an amount such as 500MB or 4GB")
        if threads < 0:
            raise OptionError(f"threads is {threads}: it must be 1 or more, or 0 for one per core")
        limit = float(given[1]) * (1024 if given[3] else 1000) ** " KMGT".index(given[2] or " ")
        # a file is compressed, and memory is not; but each table of a file waits for the disk
        shutil.rmtree(folder / "spilled", ignore_errors=True)  # of a process that was killed
        database = folder / "build.duckdb"
        self.keeps_tables = log_bytes * GROWTH >= limit or database.exists()
        self._connection = duckdb.connect(str(database) if self.keeps_tables else ":memory:")
        run = self._connection.execute
        run(f"SET memory_limit = {literal(memory_limit)}")
        run(f"SET temp_directory = {literal(str(folder / 'spilled'))}")
        run("SET preserve_insertion_order = false")
        run("SET TimeZone = 'UTC'")
        run("SET enable_progress_bar = false")
        if threads:
            run(f"SET threads = {threads}")
        self._stores: dict[str, StoreFiles] = {}
        self._broken: dict[str, list[str]] = {}  # by view, the tables of its broken lines

    def read(self, name: str, files: LogFiles, lists: tuple[str, ...] = ()) -> None:
        """See `Engine`."""
        for path in files.paths:
            if isinstance(path, StorePath):
                self._add(path)
        source = self._csv(files, name) if files.headers else self._parquet(files)
        if lists:
            lengths = ", ".join(f"coalesce(len({quoted(each)}), 0)" for each in lists)
            others = ", ".join(quoted(each) for each in lists)
            known = ", ".join(f"len({quoted(each)})" for each in lists)
            # each list is as long as the longest, so that all are taken apart together
            taken = ", ".join(f"unnest(list_resize({quoted(each)}, _longest)) AS {quoted(each)}" for each in lists)
            places = "CASE WHEN _longest = 0 THEN [NULL] ELSE range(_longest) END"
            source = (
                f"SELECT * EXCLUDE ({others}, _longest), {taken}, unnest({places}) AS {PLACE} FROM "
                f"(SELECT *, greatest({lengths}) AS _longest, coalesce(least({known}) < greatest({known}), false) AS "
                f"{UNEQUAL} FROM ({source}))"
            )
        self.view(name, source)

    def _add(self, path: StorePath) -> None:
        """Makes a file of a store known to DuckDB, which has one object for each kind of store."""
        if path.scheme not in self._stores:
            self._stores[path.scheme] = StoreFiles(path.scheme)
            self._connection.register_filesystem(self._stores[path.scheme])
        self._stores[path.scheme].add(path)

    def broken(self, name: str) -> list[tuple[str, int, int, str]]:
        """See `Engine`."""
        lines = "len(string_split(trim(e.csv_line, chr(10) || chr(13)), chr(10)))"  # of what DuckDB keeps of it
        found = []
        for rejected in self._broken.get(name, []):
            errors = self._run(
                f"""
                SELECT s.file_path, min(e.line), max({lines}), min(e.error_message), max(len(e.csv_line))
                FROM {rejected} AS e JOIN {rejected}_scans AS s USING (scan_id, file_id)
                GROUP BY s.file_path, e.scan_id, e.line_byte_position
                ORDER BY 1, 2
                """
            )
            for path, line, several, why, length in errors.fetchall():
                refuse_long(f"{path}: row {line}", several, length)
                found.append((path, line, several, why))
        return found

    def micros(self, value: str, kind: str, zone: str | None) -> str:
        """See `Engine`."""
        if kind == "instant":
            return f"epoch_us({value})"
        whole = f"epoch_us(TRY_CAST({value} AS TIMESTAMPTZ))"
        if zone is None:
            return whole
        of_zone = f"epoch_us(TRY_CAST({value} AS TIMESTAMP) AT TIME ZONE {literal(zone)})"
        return f"CASE WHEN {has_zone(value, kind)} THEN {whole} ELSE {of_zone} END"

    def different(self, values: str) -> str:
        """See `Engine`."""
        return f"LEN(LIST_DISTINCT({values}))"

    def fail(self, text: str) -> str:
        """See `Engine`."""
        return f"error('DataError: ' || {text})"

    def apart(self, query: str, column: str, separator: str | None) -> str:
        """See `Engine`."""
        values = column if separator is None else f"string_split({column}, {literal(separator)})"
        return f"""
            SELECT * EXCLUDE ({column}, _values), unnest(_values) AS {column}, unnest(range(len(_values))) AS {PLACE}
            FROM (SELECT *, {values} AS _values FROM ({query}))
            """

    def file(self, path: Path) -> str:
        """See `Engine`."""
        return f"SELECT * FROM read_parquet({literal(_name(path))}, hive_partitioning = false)"

    def table(self, name: str, query: str) -> int:
        """See `Engine`."""
        self._run(f"CREATE OR REPLACE TABLE {name} AS {query}")
        return int(self._run(f"SELECT count(*) FROM {name}").fetchall()[0][0])

    def number(self, name: str, query: str, order: str, column: str) -> int:
        """See `Engine`."""
        return self.table(name, f"SELECT *, row_number() OVER (ORDER BY {order}) AS {column} FROM ({query})")

    def known(self, name: str) -> None:
        """See `Engine`. They are in the database."""

    def view(self, name: str, query: str) -> None:
        """See `Engine`."""
        self._run(f"CREATE OR REPLACE VIEW {name} AS {query}")

    def drop(self, *names: str) -> None:
        """See `Engine`."""
        for name in names:
            self._run(f"DROP TABLE IF EXISTS {name}")
        self._run("CHECKPOINT")

    def rows(self, query: str) -> list[dict[str, Any]]:
        """See `Engine`."""
        return list(self._run(query).to_arrow_table().to_pylist())

    def stream(self, query: str) -> Iterator[pa.RecordBatch]:
        """See `Engine`."""
        cursor = self._connection.cursor()
        try:
            yield from cursor.execute(query).to_arrow_reader(ROWS_PER_BATCH)
        except duckdb.Error as error:
            raise _for_people(error) from None
        finally:
            cursor.close()

    def close(self) -> None:
        """See `Engine`."""
        self._connection.close()

    def _run(self, query: str) -> duckdb.DuckDBPyConnection:
        try:
            return self._connection.execute(query)
        except duckdb.Error as error:
            raise _for_people(error) from None

    def _parquet(self, files: LogFiles) -> str:
        paths = ", ".join(literal(_name(path)) for path in files.paths)
        return f"""
            SELECT * RENAME (file_row_number AS {ROW})
            FROM read_parquet(
                [{paths}], filename = '{FILE}', file_row_number = true, union_by_name = true, {self._hive(files)}
            )
            """

    def _csv(self, files: LogFiles, name: str) -> str:
        """One reader for the files of each header: a reader takes the columns by their places."""
        parts: list[str] = []
        for header in dict.fromkeys(files.headers):
            alike = [path for path, own in zip(files.paths, files.headers, strict=True) if own == header]
            paths = ", ".join(literal(_name(path)) for path in alike)
            columns = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in header)
            rejected = f"broken_{name}_{len(parts)}"
            self._broken.setdefault(name, []).append(rejected)
            named = ", ".join(quoted(column) for column in files.columns)
            parts.append(
                f"""
                SELECT {named}, {FILE}, CAST(NULL AS BIGINT) AS {ROW}
                FROM read_csv(
                    [{paths}], columns = {{{columns}}}, delim = {literal(files.delimiter)}, quote = '"', escape = '"',
                    auto_detect = false, header = true, filename = '{FILE}', {self._hive(files)}, store_rejects = true,
                    rejects_limit = 0, rejects_table = '{rejected}', rejects_scan = '{rejected}_scans'
                )
                """
            )
        return " UNION ALL ".join(parts)

    def _hive(self, files: LogFiles) -> str:
        types = ", ".join(f"{quoted(each)}: VARCHAR" for each in files.partitions)
        return f"hive_partitioning = true, hive_types = {{{types}}}" if types else "hive_partitioning = false"


class NoRoomError(DataError):
    """A limit of memory or disk does not suffice; with more, a build can go on."""


def _name(path: Place) -> str:
    """A file as DuckDB takes it, which reads patterns where names are meant."""
    return path.address if isinstance(path, StorePath) else glob.escape(str(path))


def _for_people(error: duckdb.Error) -> DataError:
    text = " ".join(str(error).split())
    if of_store := re.search(r"DataError: (.*?)(?: At: |$)", text):  # of `StoreFiles`
        return DataError(of_store[1])
    if isinstance(error, duckdb.OutOfMemoryException):
        return NoRoomError(f"the memory limit does not suffice: {text[:300]}; give more with --memory_limit")
    if "No space left" in text:
        return NoRoomError(f"the disk is full: {text[:300]}; make room beside the new folder")
    return DataError(f"DuckDB cannot go on: {text[:500]}")
