"""Goes on with an interrupted build: a statement that an earlier process has finished is not run again."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from lightning_ccn.data.build.engine import Engine
from lightning_ccn.data.build.log_files import LogFiles

JOURNAL = "journal.jsonl"  # in the build's work folder


class OtherStatementsError(Exception):
    """A journal is of a package whose statements were others."""


def is_begun(folder: Path, of_this: Mapping[str, Any]) -> bool:
    """Whether a work folder has the journal of a build of this, see `Journal`."""
    lines = _lines(folder / JOURNAL)
    return bool(lines) and lines[0].get("of") == json.loads(json.dumps(of_this))


class Journal:
    """The finished statements of a build with their results, one line of JSON each, after a line on what is built.

    Args:
        folder: The build's work folder, in which an earlier process may have left a journal, see `is_begun`.
        of_this: What is built from what, as plain values.
        latest: The latest time that is believed; part of the statements.

    Attributes:
        latest: The same; if there is a journal, that of its first process.
        done: What an earlier process has finished: the digest of each statement, and its result.
    """

    def __init__(self, folder: Path, of_this: Mapping[str, Any], latest: int) -> None:
        self._path = folder / JOURNAL
        head, *self.done = _lines(self._path) or [{"of": of_this, "latest": latest}]
        self.latest: int = head["latest"]
        # without a last line that was cut off
        self._path.write_text("".join(json.dumps(line) + "\n" for line in (head, *self.done)))

    def add(self, digest: str, result: Any) -> None:
        """Notes that a statement is finished."""
        with open(self._path, "a") as file:
            file.write(json.dumps({"statement": digest, "result": result}) + "\n")
            file.flush()
            os.fsync(file.fileno())


class ResumingEngine:
    """An engine that takes the results of finished statements from a journal, and notes those that it runs.

    Tables stay where the engine keeps them. Views, which cost nothing, are made again.

    Args:
        engine: The engine, which has kept the tables of an earlier process.
        journal: The journal.
    """

    def __init__(self, engine: Engine, journal: Journal) -> None:
        self._engine, self._journal = engine, journal
        self._replayed, self._ran = 0, 0
        self._read: dict[str, Callable[[], None]] = {}  # views of files that no statement has used yet
        self._broken: dict[str, list[tuple[str, int, int, str]]] = {}

    @property
    def statements(self) -> tuple[int, int]:
        """How many statements an earlier process has run, and this one, so far."""
        return self._replayed, self._ran

    def read(self, name: str, files: LogFiles, lists: tuple[str, ...] = ()) -> None:
        """See `Engine`. To look into thousands of files again would take time, so it waits until the view is used."""
        self._read[name] = lambda: self._engine.read(name, files, lists)

    def broken(self, name: str) -> list[tuple[str, int, int, str]]:
        """See `Engine`. A statement that reads files notes the broken lines, too: later, nobody would know them."""
        return self._broken[name]

    def micros(self, value: str, kind: str, zone: str | None) -> str:
        """See `Engine`."""
        return self._engine.micros(value, kind, zone)

    def fail(self, text: str) -> str:
        """See `Engine`."""
        return self._engine.fail(text)

    def different(self, values: str) -> str:
        """See `Engine`."""
        return self._engine.different(values)

    def apart(self, query: str, column: str, separator: str | None) -> str:
        """See `Engine`."""
        return self._engine.apart(query, column, separator)

    def file(self, path: Path) -> str:
        """See `Engine`."""
        return self._engine.file(path)

    def table(self, name: str, query: str) -> int:
        """See `Engine`."""
        return self._made(name, [query], query, lambda: self._engine.table(name, query))

    def number(self, name: str, query: str, order: str, column: str) -> int:
        """See `Engine`."""
        return self._made(name, [query, order, column], query, lambda: self._engine.number(name, query, order, column))

    def known(self, name: str) -> None:
        """See `Engine`."""
        self._engine.known(name)

    def view(self, name: str, query: str) -> None:
        """See `Engine`."""
        self._engine.view(name, query)

    def drop(self, *names: str) -> None:
        """See `Engine`."""
        self._once("drop", list(names), lambda: self._engine.drop(*names))

    def rows(self, query: str) -> list[dict[str, Any]]:
        """See `Engine`."""
        rows: list[dict[str, Any]] = self._once("rows", [query], lambda: self._engine.rows(query))
        return rows

    def stream(self, query: str) -> Iterator[pa.RecordBatch]:
        """See `Engine`. The tables of it must not be dropped before the build ends: it runs in each process."""
        return self._engine.stream(query)

    def close(self) -> None:
        """See `Engine`."""
        self._engine.close()

    def _made(self, name: str, words: list[str], query: str, make: Callable[[], int]) -> int:
        used = {view: self._read.pop(view) for view in [*self._read] if re.search(rf"\b{view}\b", query)}

        def run() -> list[Any]:
            for read in used.values():
                read()
            rows = make()
            return [rows, {view: self._engine.broken(view) for view in used}]

        ran = self._ran
        rows, broken = self._once("table", [name, *words], run)
        if self._ran == ran:
            self._engine.known(name)
        self._broken |= {view: [(path, line, lines, why) for path, line, lines, why in found]
                         for view, found in broken.items()}  # fmt: skip
        return int(rows)

    def _once(self, what: str, words: list[str], run: Callable[[], Any]) -> Any:
        digest = hashlib.sha256(json.dumps([what, *words]).encode()).hexdigest()[:16]
        if self._replayed < len(self._journal.done):
            line = self._journal.done[self._replayed]
            if line["statement"] != digest:
                raise OtherStatementsError
            self._replayed += 1
            return line["result"]
        result = json.loads(json.dumps(run(), default=int))  # as it is read again; sums of DuckDB are decimals
        self._ran += 1
        self._journal.add(digest, result)
        return result


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines; the last one may have been cut off."""
    found: list[dict[str, Any]] = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found
