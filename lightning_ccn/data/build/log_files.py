"""The files of a raw log, and what their footers and headers say of the columns."""

from __future__ import annotations

import csv
import difflib
import fnmatch
import glob
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from lightning_ccn.data.parquet import FILES_AT_ONCE, open_part
from lightning_ccn.data.places import Place, place
from lightning_ccn.data.store_errors import retried
from lightning_ccn.data.store_path import StorePath
from lightning_ccn.errors import DataError

Result = TypeVar("Result")

PARQUET = (".parquet",)
SAME_IN_SQL = "differ in case alone, and SQL does not tell them apart; rename or drop one"
RESERVED = ("_file", "_row", "_place", "_unequal", "_broken", "file_row_number")  # an engine adds these
CSV = tuple(f"{text}{packed}" for text in (".csv", ".tsv") for packed in ("", ".gz", ".zst"))
DELIMITERS = (";", "\t", "|", ",")
LISTS = "list of "
WIDE = "uint64 or decimal"  # a kind whose values no other number can hold
NUMBERS = ("int", "float")
WORDS = {"truth": "true/false (boolean)", "instant": "timestamp with a zone"}  # for kinds whose names say little
WORDS["other"] = "a struct, a map, binary or another type that cannot be read"


@dataclass(frozen=True)
class LogFiles:
    """Files with one kind of rows.

    Attributes:
        name: The key of the specification that names them, for messages.
        paths: The files, ordered by path.
        columns: Kind of each column: `int`, `float`, `big` (integers beyond int64, decimals), `text`, `truth`, `date`,
            `timestamp`, `instant` (with a zone), `list of` one of these, or `other`. All columns of CSV files are text.
        headers: The columns of each CSV file, in its order; empty for Parquet files.
        delimiter: Of CSV files.
        partitions: Columns whose values are in the names of folders, such as day=2024-01-31.
    """

    name: str
    paths: tuple[Place, ...]
    columns: dict[str, str]
    headers: tuple[tuple[str, ...], ...]
    delimiter: str
    partitions: tuple[str, ...]

    def kind(self, column: str, where: str) -> str:
        """The kind of a column.

        Args:
            column: Name of the column.
            where: The key of the specification that names it, for the message.

        Raises:
            DataError: There is no such column.
        """
        if column not in self.columns:
            close = difflib.get_close_matches(column, self.columns, n=1)
            meant = f"did you mean {close[0]}? " if close else ""
            if (other := other_delimiter(self)) is not None:
                meant = f"write {self.name}.delimiter: {json.dumps(other)}, if that is between them. "
            raise DataError(
                f"{self.paths[0]}: column {column}: missing, but {where} names it; {meant}The columns are "
                f"{', '.join(self.columns)}"
            )
        if alike := [name for name in self.columns if name != column and name.casefold() == column.casefold()]:
            raise DataError(f"{self.paths[0]}: the columns {column!r} and {alike[0]!r} {SAME_IN_SQL}")
        return self.columns[column]


def in_words(kind: str) -> str:
    """A kind of columns, see `LogFiles`, as a message calls it after "is"."""
    alone = kind.removeprefix(LISTS)
    return kind.removesuffix(alone) + WORDS.get(alone, alone)


def other_delimiter(files: LogFiles) -> str | None:
    """What is probably between the columns of a CSV file, if its header is read as one column; else None."""
    if not files.headers or len(files.columns) > 1:
        return None
    [name] = files.columns
    return max((each for each in DELIMITERS if each in name), key=name.count, default=None)


def find_log(name: str, patterns: Iterable[str], base: Path, delimiter: str | None) -> LogFiles:
    """Finds files, and reads their footers or headers.

    Args:
        name: The key of the specification that names them.
        patterns: Patterns of files or folders.
        base: The folder that they are relative to.
        delimiter: Of CSV files; None: a tab in .tsv files, else a comma.

    Raises:
        DataError: There are no files, files of several forms, a file cannot be read, or a column has two kinds.
    """
    found_paths = {path for pattern in patterns for path in _matches(name, pattern, base)}
    paths: list[Any] = sorted(found_paths, key=attrgetter("parts"))
    forms = {"parquet" if path.name.endswith(PARQUET) else "csv" for path in paths}
    if len(forms) > 1:
        raise DataError(f"{name}.files: has Parquet and CSV files, such as {paths[0]} and {paths[-1]}; name one form")
    if delimiter is None:
        delimiter = "\t" if ".tsv" in paths[0].name else ","
    read = _footer if forms == {"parquet"} else lambda path: _header(path, delimiter)
    packed: list[Place] = [path for path in paths if path.suffix in (".gz", ".zst")]
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        found = list(pool.map(read, paths))
        list(pool.map(_refuse_cut_off, packed))
    partitions = _partitions(name, paths)
    columns = _united(paths, found)
    for column in columns:
        if column in RESERVED:
            raise DataError(f"{paths[0]}: column {column}: a build uses this name itself; rename the column")
        if column in partitions:
            raise DataError(
                f"{paths[0]}: column {column}: is in the file and in the names of its folders; drop one of the two"
            )
    columns |= dict.fromkeys(partitions, "text")
    headers = tuple(tuple(each) for each in found) if forms == {"csv"} else ()
    return LogFiles(name, tuple(paths), columns, headers, delimiter, partitions)


def _matches(name: str, pattern: str, base: Path) -> Sequence[Place]:
    at = place(pattern)
    if isinstance(at, StorePath):
        return _named_as_log(name, pattern, _stored(at))
    given = os.path.join(glob.escape(str(base)), at)  # the folder's own name is no pattern, whatever it is called
    return _named_as_log(name, str(base / at), _on_disk(given))


def _on_disk(given: str) -> list[Path]:
    found = [Path(each) for each in glob.glob(given, recursive=True)]
    files = [path for path in found if path.is_file()]
    seen = set()
    for folder in (path for path in found if path.is_dir()):
        for at, folders, names in os.walk(folder, followlinks=True):
            if (real := os.path.realpath(at)) in seen:
                raise DataError(f"{at}: a link to a folder whose files are read already; they would count twice")
            seen.add(real)
            folders[:] = [each for each in folders if not each.startswith(("_", "."))]
            files += [Path(at) / each for each in names if not each.startswith(("_", "."))]
    return [path for path in files if not path.name.startswith(("_", "."))]


def _stored(pattern: StorePath) -> list[StorePath]:
    """Files of a store, of a pattern of names; what begins with `?` are options of pyarrow, and no pattern."""
    pattern.refuse_missing()
    if pattern.is_file():
        return [pattern]
    names = pattern.parts[1:]
    plain = next((at for at, each in enumerate(names) if glob.has_magic(each)), len(names))
    folder = pattern
    for _ in names[plain:]:
        folder = folder.parent
    within = [(path, path.relative_to(folder).parts) for path in folder.files()]
    return [
        path
        for path, inside in within
        if _fits(inside, names[plain:]) and not any(each.startswith(("_", ".")) for each in inside)
    ]


def _fits(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a path, or a folder on the way to it, fits the patterns of its names; `**` stands for any folders."""
    if not patterns:
        return True
    if patterns[0] == "**":
        return any(_fits(names[at:], patterns[1:]) for at in range(len(names)))
    return bool(names) and fnmatch.fnmatchcase(names[0], patterns[0]) and _fits(names[1:], patterns[1:])


def _named_as_log(name: str, given: str, files: Sequence[Place]) -> Sequence[Place]:
    if not files:
        raise DataError(f"{given}: no such file, but {name}.files names it; patterns are relative to the specification")
    for path in files:
        if not path.name.endswith((*PARQUET, *CSV)):
            raise DataError(
                f"{path}: the name says neither Parquet nor CSV; {name}.files takes names that end in "
                f"{', '.join((*PARQUET, *CSV))}"
            )
    return files


def _footer(path: Place) -> dict[str, str]:
    with open_part(path) as file:
        found = {field.name: _kind(field.type) for field in file.schema_arrow}
    if not found:
        raise DataError(f"{path}: has no columns; write it again, or leave it out")
    return found


def _header(path: Place, delimiter: str) -> dict[str, str]:
    try:
        line = _read(path, lambda stream: next(csv.reader(_text(stream), delimiter=delimiter), []))
    except (OSError, pa.ArrowException, csv.Error) as error:
        raise DataError(f"{path}: its first line cannot be read as names of columns: {error}") from None
    if any("\0" in name or "\N{REPLACEMENT CHARACTER}" in name for name in line):
        raise DataError(f"{path}: its first line is not UTF-8; write the file in UTF-8")
    if not any(line):
        raise DataError(f"{path}: is empty; the first line of a CSV file has the names of its columns")
    if twice := {each for each in line if line.count(each) > 1}:
        raise DataError(f"{path}: row 1: the column {min(twice)!r} is there twice; give each column a name of its own")
    if alike := next((pair for pair in combinations(line, 2) if pair[0].casefold() == pair[1].casefold()), None):
        raise DataError(f"{path}: row 1: the columns {alike[0]!r} and {alike[1]!r} {SAME_IN_SQL}")
    return dict.fromkeys(line, "text")


def _text(stream: pa.NativeFile) -> io.TextIOWrapper:
    return io.TextIOWrapper(stream, "utf-8-sig", "replace", newline="")


def _read(path: Place, take: Callable[[pa.NativeFile], Result]) -> Result:
    """What a function takes of an unpacked file."""
    if isinstance(path, Path):
        with pa.input_stream(str(path), compression="detect") as stream:
            return take(stream)

    def read() -> Result:
        with path.open_stream() as stream:
            return take(stream)

    return retried(read, str(path))


def _refuse_cut_off(path: Place) -> None:
    """Reads a compressed file to its end: engines take a file that is cut off as far as it goes."""
    try:
        _read(path, _to_the_end)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be unpacked to its end: {error}; copy it again") from None


def _to_the_end(stream: pa.NativeFile) -> None:
    while stream.read(1 << 22):
        pass


def _kind(stored: pa.DataType) -> str:
    types = pa.types
    if types.is_list(stored) or types.is_large_list(stored) or types.is_fixed_size_list(stored):
        return LISTS + _kind(stored.value_type)
    if types.is_dictionary(stored):
        return _kind(stored.value_type)
    tests = {
        "nothing": types.is_null(stored),
        WIDE: types.is_uint64(stored) or types.is_decimal(stored),
        "int": types.is_integer(stored),
        "float": types.is_floating(stored),
        "text": types.is_string(stored) or types.is_large_string(stored) or types.is_string_view(stored),
        "truth": types.is_boolean(stored),
        "date": types.is_date(stored),
        "instant": types.is_timestamp(stored) and stored.tz is not None,
        "timestamp": types.is_timestamp(stored),
    }
    return next((kind for kind, fits in tests.items() if fits), "other")


def _united(paths: Sequence[Place], found: Sequence[dict[str, str]]) -> dict[str, str]:
    """The columns that all files have; each has one kind in all of them, or no value at all in some."""
    columns, first = dict(found[0]), dict.fromkeys(found[0], paths[0])
    for path, here in zip(paths, found, strict=True):
        for name in columns.keys() | here.keys():
            if name not in here or name not in columns:
                without, having = (path, paths[0]) if name not in here else (paths[0], path)
                raise DataError(f"{without}: column {name}: missing, but {having} has it; give all files one header")
            if columns[name] == "nothing":
                columns[name], first[name] = here[name], path
            elif here[name] not in (columns[name], "nothing"):
                raise DataError(
                    f"{path}: column {name}: is {in_words(here[name])}, but in {first[name]} it is "
                    f"{in_words(columns[name])}; write one type in all files"
                )
    return {name: "text" if kind == "nothing" else kind for name, kind in columns.items()}


def _partitions(name: str, paths: Sequence[Place]) -> tuple[str, ...]:
    """The columns in the names of folders, such as day=2024-01-31, which all files have or none."""
    of_files = {tuple(part.partition("=")[0] for part in path.parts[:-1] if "=" in part) for path in paths}
    if len(of_files) > 1:
        raise DataError(
            f"{name}.files: some files are in folders such as day=2024-01-31 and others are not: {paths[0]}"
        )
    return of_files.pop()
