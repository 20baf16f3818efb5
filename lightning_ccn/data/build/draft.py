"""`ccn data init`: a first draft of a specification, from the names and first values of a log's columns."""

from __future__ import annotations

import fnmatch
import glob
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_ccn.data.build.duckdb_engine import DuckDBEngine
from lightning_ccn.data.build.engine import FILE, ROW
from lightning_ccn.data.build.log_files import CSV, LISTS, PARQUET, LogFiles, find_log, other_delimiter
from lightning_ccn.data.build.log_table import TABLES, TIME, LogTable, snake
from lightning_ccn.data.build.read_spec import TODO
from lightning_ccn.data.places import Place, place
from lightning_ccn.data.store_path import StorePath
from lightning_ccn.errors import DataError

LOOKED_AT = 1000  # rows of each table
PART = re.compile(r"(.*?)(?:(?<=[_.-])[A-Za-z]|\d[\d_.T:-]*)(\.[A-Za-z].*)")  # the name of a file of several
CATEGORY = "category|genre|topic|department"
VALIDITY = {"since": "(^|_)(since|valid_from|from|start)", "until": "(^|_)(until|valid_to|to|end)(_|$)"}  # of a profile


def draft(log: str | Path) -> str:
    """A first draft of the specification of a log, for `ccn data build`.

    It guesses from names and from the first rows, and says so: read it before you build.

    Args:
        log: The folder of the log, on a disk or in a store. Each file in it, and each subfolder, is a table.

    Returns:
        The specification in YAML, with comments. Save it in the folder; that of a log in a store has whole addresses,
        and may be saved anywhere.

    Raises:
        DataError: There is no such folder, or no file of a log in it.
    """
    folder = place(log)
    if isinstance(folder, StorePath):
        folder.refuse_missing()
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; name the folder with the files of the log")
    with tempfile.TemporaryDirectory() as scratch:
        engine = DuckDBEngine(Path(scratch), "1GB", 0, 0)
        try:
            tables = [_look(*found, engine, at) for at, found in enumerate(_tables(folder))]
        finally:
            engine.close()
    if not tables:
        raise DataError(
            f"{folder}: no file of a log; a table is a file, or a subfolder of files, of {', '.join(PARQUET + CSV)}"
        )
    chosen = _choose(tables)
    lines = ["# A first draft by `ccn data init`: it guesses from names and from the first rows. Read each line."]
    lines += _exposures(chosen.get("exposures", tables[0]), chosen.get("events"))
    if "events" in chosen:
        lines += _events(chosen["events"])
    taken = set(chosen.get("exposures", tables[0]).files.columns)  # a name of a feature or number is used once
    for name, key in (("users", "features"), ("items", "attributes")):
        if name in chosen:
            lines += _entities(name, key, chosen[name], taken)
            taken |= set(chosen[name].files.columns)
    used = [table.pattern for table in chosen.values()]
    for table in tables:
        if table.pattern not in used:
            also = "events" in chosen and re.search(TABLES["events"], table.name)
            why = f"; if it has events too, unite it with {chosen['events'].pattern}, see docs/build.md" if also else ""
            lines.append(f"# not used: {table.pattern}{why}")
    lines.append("split: {validation: 0.1, test: 0.2}  # shares of the page views in order of time, or dates")
    return "\n".join(lines) + "\n"


def _tables(folder: Place) -> list[tuple[str, LogFiles]]:
    """Pattern and files of each table. The pattern of a table in a store is its whole address."""
    if isinstance(folder, StorePath):
        within = [(path.relative_to(folder).parts[0], path.name.endswith(PARQUET + CSV)) for path in folder.files()]
        names = sorted({name for name, is_log in within if is_log and not name.startswith(("_", "."))})
        found = {name: _find(str(folder / name), Path()) for name in names}
        return [(str(folder / pattern), files) for pattern, files in _united(found, {name for name, _ in within})]
    found = {}
    for path in sorted(folder.iterdir()):
        inside = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
        is_log = any(each.name.endswith(PARQUET + CSV) for each in inside)
        is_dataset = (path / "schema.yaml").is_file()  # of an earlier build
        if is_log and not is_dataset and not path.name.startswith(("_", ".")):
            found[path.name] = _find(glob.escape(path.name), folder)
    return [*_united(found, {path.name for path in folder.iterdir()})]


def _united(found: dict[str, LogFiles], names: set[str]) -> Iterator[tuple[str, LogFiles]]:
    """Pattern and files of each table; files of the same columns whose names differ in a number or a letter are one.

    Args:
        found: What there is, by the name of its file or folder.
        names: All names in the folder of the log. Files are one table only if a pattern matches them and nothing else.
    """
    parts = {name: PART.fullmatch(name) for name in found}
    wider = {name: f"{glob.escape(at[1])}*{glob.escape(at[2])}" for name, at in parts.items() if at}
    patterns: dict[str, str] = {}
    for name, files in found.items():
        fits = [each for each in names if fnmatch.fnmatchcase(each, wider.get(name, ""))]
        alike = all(wider.get(each) == wider[name] and _form(found[each]) == _form(files) for each in fits)
        patterns[name] = wider[name] if alike and len(fits) > 1 else glob.escape(name)
    for pattern in dict.fromkeys(patterns.values()):
        each = [found[name] for name in found if patterns[name] == pattern]
        paths = tuple(path for files in each for path in files.paths)
        headers = tuple(header for files in each for header in files.headers)
        yield pattern, replace(each[0], name=pattern, paths=paths, headers=headers)


def _form(files: LogFiles) -> tuple[Any, ...]:
    """What files of one table have in common."""
    return files.columns, files.delimiter, files.partitions


def _find(pattern: str, folder: Path) -> LogFiles:
    files = find_log(pattern, [pattern], folder, None)
    delimiter = other_delimiter(files)
    return files if delimiter is None else find_log(pattern, [pattern], folder, delimiter)


def _look(pattern: str, files: LogFiles, engine: DuckDBEngine, at: int) -> LogTable:
    engine.read(f"t{at}", files)
    rows = engine.rows(f"SELECT * FROM t{at} LIMIT {LOOKED_AT}")
    return LogTable(pattern, files, [{c: v for c, v in row.items() if c not in (FILE, ROW)} for row in rows])


def _choose(tables: list[LogTable]) -> dict[str, LogTable]:
    chosen: dict[str, LogTable] = {}
    if not any(re.search(TABLES["exposures"], table.name) for table in tables):
        pages = [table for table in tables if table.is_of_pages()]
        chosen = {"exposures": pages[0]} if pages else {}
    for kind, words in TABLES.items():
        fits = [table for table in tables if table not in chosen.values() and re.search(words, table.name)]
        if fits:
            chosen[kind] = max(fits, key=LogTable.events_first) if kind == "events" else fits[0]
    if "exposures" not in chosen:
        left = [table for table in tables if table not in chosen.values()] or tables
        chosen["exposures"] = max(left, key=lambda table: (table.is_of_pages(), len(table.roles())))
        chosen = {
            kind: table for kind, table in chosen.items() if kind == "exposures" or table is not chosen["exposures"]
        }
    return chosen


def _line(table: LogTable, key: str, column: str | None, note: str = "") -> str:
    if column is None:
        return f"  {key}: TODO  # no column has such a name; the columns are {', '.join(table.files.columns)}"
    example = table.example(column)
    about = [] if example is None else [f"such as {str(example)[:40]!r}"]
    return f"  {key}: {_word(column)}  # {'; '.join([*about, *([note] if note else [])]) or 'without a value'}"


def _files(table: LogTable) -> list[str]:
    """Where a table is, and what is between the columns of its CSV files if that is neither usual nor said by names."""
    delimiter = table.files.delimiter
    unusual = table.files.headers and delimiter != ("\t" if ".tsv" in table.files.paths[0].name else ",")
    return [f"  files: {_word(table.pattern)}", *([f"  delimiter: {json.dumps(delimiter)}"] if unusual else [])]


def _time(table: LogTable, column: str | None, key: str = "time") -> str:
    size = None if column is None else table.usual_number(column)
    if column is None or size is None:
        return _line(table, key, column)
    unit = "ns" if size > 1e17 else "us" if size > 1e14 else "ms" if size > 1e11 else "s"
    return f"  {key}: {{column: {_word(column)}, unit: {unit}}}  # such as {table.example(column)!r}"


def _exposures(table: LogTable, events: LogTable | None) -> list[str]:
    roles = table.roles()
    page = roles.get("page") or roles.get("session")
    key = _line(table, "page", page, "impressions with the same value are one page view")
    if "page" not in roles and table.is_of_pages() and "user" in roles and "time" in roles:
        key = f"  page: [{_word(roles['user'])}, {_word(roles['time'])}]  # no page id: each row is a page view"
    elif page is None:
        same = [column for column in (roles.get("user"), roles.get("trigger")) if column]
        columns = ", ".join(map(_word, same)) or TODO
        key = f"  page: {{columns: [{columns}], gap: 30m}}  # no page id: by user, and by time"
    lines = [
        "exposures:  # one row an impression, or one row a page with lists",
        *_files(table),
        key,
    ]
    lines += [
        _line(table, "user", roles.get("user")),
        _line(table, "item", roles.get("item")),
        _time(table, roles.get("time")),
    ]
    if "trigger" in roles:
        lines.append(_line(table, "trigger", roles["trigger"], "the item that the user tapped to enter the page"))
    if "position" in roles:
        lines.append(_line(table, "position", roles["position"]))
    if "clicks" in roles and (not table.files.columns[roles["clicks"]].startswith(LISTS) or _labels(table)):
        lines.append(_line(table, "clicks", roles["clicks"]))
    elif "clicks" in roles:
        lines.append(f"  clicks: {{ids: {_word(roles['clicks'])}}}  # a list of the clicked items")
    elif events is not None:
        lines.append(f"  clicks: {_clicks_of(events)}  # events up to 30 minutes after the impression")
    else:
        lines.append(_line(table, "clicks", None))
    if "purchases" in roles:
        lines.append(_line(table, "purchases", roles["purchases"]))
    used = [column for role, column in roles.items() if role != "type"]  # events have types, and pages features
    used += [column for column in table.files.columns if table.role(column) == "item" and snake(column).endswith("_id")]
    return lines + _rest(table, [column for column in table.files.columns if column not in used], "features", [])


def _labels(table: LogTable) -> bool:
    """Whether the lists of clicks are labels: 0 or 1 for each item of a list of the same length."""
    roles = table.roles()
    pairs = [(row[roles["clicks"]], row.get(roles.get("item", ""))) for row in table.rows]
    lists = [(clicks, items) for clicks, items in pairs if clicks is not None]
    alike = all(isinstance(items, list) and len(items) == len(clicks) for clicks, items in lists)
    return alike and {click for clicks, _ in lists for click in clicks} <= {0, 1}


def _clicks_of(events: LogTable) -> str:
    """Which events are clicks: all, if they have no type."""
    if "type" not in events.roles():
        return "{within: 30m}"
    types = events.types()
    clicks = [_word(name) for name in types if "click" in name.lower()] or ([TODO] if types else ["click"])
    return f"{{types: [{', '.join(clicks)}], within: 30m}}"


def _events(table: LogTable) -> list[str]:
    roles = table.roles()
    lines = ["events:  # what users did; a page view gets those before it", *_files(table)]
    lines += [
        _line(table, "user", roles.get("user")),
        _line(table, "item", roles.get("item")),
        _time(table, roles.get("time")),
    ]
    if "type" in roles:
        lines.append(f"  type: {_word(roles['type'])}  # {', '.join(table.types()[:8])}")
    return [*lines, "behaviours:  # the last events before the page view; {length: 200, types: [click], days: 90}",
            "  short: 20", "  long: 200"]  # fmt: skip


def _entities(name: str, key: str, table: LogTable, taken: set[str]) -> list[str]:
    own = name.removesuffix("s")
    roles = table.roles()
    rest = [column for column in table.files.columns if column != roles.get(own) and column not in taken]
    lines = [f"{name}:", *_files(table), _line(table, own, roles.get(own))]
    if name == "users":
        for side, words in VALIDITY.items():
            column = next((c for c in rest if re.search(words, c.lower())), None)
            if column is None:
                break
            lines.append(_time(table, column, side))
            rest.remove(column)
    lists = [c for c in rest if table.files.columns[c] in (f"{LISTS}text", f"{LISTS}int")]
    more = _rest(table, rest, key, lists)
    if name == "users" and not more:
        more.append("  features: [TODO]  # no column repeats as those of a category do")
    lines += more
    vectors = [c for c in rest if table.files.columns[c] == f"{LISTS}float"]
    if name == "items" and vectors:
        lines.append(f"  vectors: [{', '.join(map(_word, vectors))}]  # lists of one length")
    category = next((c for c in rest if re.search(CATEGORY, c.lower()) and c not in lists), None)
    if name == "items" and category is not None and more and _word(category) in more[-1]:
        lines.append(f"  category: {_word(category)}  # the long sequence is searched by it")
    return lines


def _rest(table: LogTable, columns: list[str], features: str, lists: list[str]) -> list[str]:
    """Columns without a role: numbers if they are numbers that hardly repeat, else features if they do, and lists."""
    columns = [c for c in columns if not re.search(TIME, snake(c)) and not table.holds_times(c)]
    plain = [c for c in columns if not table.is_list(c)]
    numbers = [c for c in plain if table.number(c) and table.files.columns[c] != "int"]
    found = [c for c in plain if c not in numbers and table.few(c)]
    of = "page_numbers" if table.is_of_pages() else "numbers"
    lines = [f"  {of}: [{', '.join(map(_word, numbers))}]"] if numbers else []
    if found or lists:
        lines.append(f"  {features}: [{', '.join(map(_word, found + lists))}]  # leave out what a page cannot know yet")
    return lines


def _word(text: str) -> str:
    """A name as YAML takes it."""
    plain = re.fullmatch(r"([a-z][a-z0-9+]*://)?[A-Za-z_][\w./-]*", text)
    return text if plain and text not in ("null", "true", "false", TODO) else f"'{text}'"
