"""Events of a log: read once as `acts`, joined to impressions as labels, and put into order as behaviours."""

from __future__ import annotations

import re

from lightning_ccn.data.build.build_report import BuildReport, Progress
from lightning_ccn.data.build.engine import PLACE, UNEQUAL, Engine, columns, literal
from lightning_ccn.data.build.impressions import SECOND
from lightning_ccn.data.build.log_columns import LogColumns
from lightning_ccn.data.build.log_files import LISTS, LogFiles
from lightning_ccn.data.build.source_specs import EventSpec, LabelSpec
from lightning_ccn.data.build.spec import LogSpec
from lightning_ccn.data.build.strangers import one_of_each, refuse_strangers
from lightning_ccn.errors import DataError

TYPE_NAMES = r"(^|_)(type|kind|action|event)$|^what$|^event_name$"  # columns that probably have the types of events
SEEN = "JOIN (SELECT DISTINCT item_key FROM shown) AS s ON a.item_key = s.item_key"
MOST_TYPES = 20  # a column of more values probably has something else


def read_events(
    spec: EventSpec,
    files: LogFiles,
    engine: Engine,
    text_ids: dict[str, bool],
    latest: int,
    named_types: dict[str, tuple[str, ...]],
    of_all: list[str],
    report: BuildReport,
    progress: Progress,
) -> None:
    """Makes `acts`: the events of users who have a page view. `visitors` numbers these users by `user_no`.

    Args:
        spec: What the log calls things.
        files: Its files.
        engine: The engine, with `pages`.
        text_ids: Whether the ids of a table are text, by table.
        latest: The latest time that is believed, in seconds since 1970.
        named_types: The types of events that the specification names, by the key that names them.
        of_all: The labels that events of all types give: their keys.
        report: Counts what is dropped.
        progress: Says how long it takes.

    Raises:
        DataError: A column is missing, or cannot hold what it should; no event is left; no event is of a type that
            the specification names; or events of several types give a label that names none.
    """
    lists: tuple[str, ...] = ()
    if files.kind(spec.item, "events.item").startswith(LISTS):
        named = [spec.item, spec.time.column, *(name for name in (spec.type, spec.order) if name)]
        lists = tuple(dict.fromkeys(name for name in named if files.kind(name, "events").startswith(LISTS)))
    of = LogColumns(files, engine, lists)
    type_column = spec.type or _alike(spec, of)
    values = {
        "user_key": of.key(spec.user, "events.user", text_ids["user"]),
        "item_key": of.key(spec.item, "events.item", text_ids["item"]),
        "us": of.micros(spec.time, "events.time"),
        "meant": of.meant_unit(spec.time, "events.time"),
        "type": of.text(spec.type, "events.type") if spec.type else "CAST(NULL AS VARCHAR)",
        "alike": of.text(type_column, "events.type") if type_column else "CAST(NULL AS VARCHAR)",
        "place": of.integer(spec.order, "events.order") if spec.order else "CAST(NULL AS BIGINT)",
        "odd_place": of.no_number(spec.order, "events.order") if spec.order else "CAST(NULL AS VARCHAR)",
        "example": of.example({"user": spec.user, "item": spec.item, "time": spec.time.column}),
    }
    reasons = {
        "user_key IS NULL": "no user",
        "item_key IS NULL": "no item",
        **of.time_reasons(spec.time, latest),
    }
    if lists:
        values["unequal"] = UNEQUAL
        reasons = {"unequal": f"lists of unequal length on its row: {', '.join(lists)}", **reasons}
    cases = " ".join(f"WHEN {test} THEN '{reason}'" for test, reason in reasons.items())
    with progress.stage("events read") as count:
        engine.read("raw_events", files, lists)
        total = engine.table(
            "told",
            f"""
            SELECT user_key, item_key, us, type, alike, place, odd_place, reason,
                CASE WHEN reason IS NOT NULL THEN example END AS example
            FROM (
                SELECT *, CASE {cases} END AS reason
                FROM (SELECT {columns(values)} FROM raw_events {f"WHERE {PLACE} IS NOT NULL" if lists else ""}) AS typed
            ) AS judged
            """,
        )
        count(total)
    report.add("events", "read", "total", total)
    report.broken_lines("events", engine, "raw_events")
    summary = "SELECT reason, COUNT(*) AS count, MIN(example) AS example FROM told GROUP BY reason"
    if report.dropped("events", engine, summary) == total > 0:
        why = "; ".join(f"{reason}: for example {example}" for reason, example in report.examples["events"].items())
        raise DataError(f"no event is left of {total:,}: {why}")
    if spec.order:
        report.no_numbers(engine, "told", {spec.order: ("place", "odd_place")}, "events.order")
    _refuse_unknown_types(spec, named_types, engine)
    if of_all and type_column is not None:
        _refuse_all_types(of_all[0], type_column, spec, engine)
    engine.table(
        "acts",
        f"""
        SELECT v.user_no, t.user_key, t.item_key, t.us, t.us // {SECOND} AS sec, t.type, t.place
        FROM told AS t JOIN visitors AS v ON t.user_key = v.user_key
        WHERE t.reason IS NULL
        """,
    )
    kept = engine.rows("SELECT COUNT(*) AS n FROM acts")[0]["n"]
    usable = engine.rows("SELECT COUNT(*) AS n FROM told WHERE reason IS NULL")[0]["n"]
    if not kept:
        theirs, ours = "SELECT user_key AS id FROM told WHERE reason IS NULL", "SELECT user_key AS id FROM visitors"
        refuse_strangers(files, spec.user, theirs, ours, engine)
    elif not engine.rows(f"SELECT COUNT(*) AS n FROM (SELECT 1 AS one FROM acts AS a {SEEN} LIMIT 1) AS each")[0]["n"]:
        there, here = one_of_each("SELECT item_key AS id FROM acts", "SELECT item_key AS id FROM shown", engine)
        report.warnings.append(
            f"no impression has an item of the events, such as {there!r}; the impressions have items such as {here!r}: "
            "are ids written alike in both?"
        )
    report.add("events", "kept", "of users with a page view", kept)
    report.add("events", "dropped", "of users without a page view", usable - kept)
    engine.drop("told")


def _refuse_unknown_types(spec: EventSpec, named_types: dict[str, tuple[str, ...]], engine: Engine) -> None:
    rows = engine.rows("SELECT type, COUNT(*) AS n FROM told WHERE reason IS NULL GROUP BY type ORDER BY n DESC, type")
    there = [row["type"] for row in rows]
    for key, types in named_types.items():
        for name in types:
            if there and name not in there:
                known = ", ".join(str(each) for each in there[:10])
                raise DataError(f"{key}: no event has '{name}' in column {spec.type}; the types there are {known}")


def _alike(spec: EventSpec, of: LogColumns) -> str | None:
    """A column that probably has the types of events, though the specification does not say so."""
    used = (spec.user, spec.item, spec.time.column, spec.order)
    names = (name for name in of.files.columns if name not in used and re.search(TYPE_NAMES, name.lower()))
    return next((name for name in names if not of.kind(name, "events").startswith(LISTS)), None)


def _refuse_all_types(key: str, column: str, spec: EventSpec, engine: Engine) -> None:
    """Refuses a label of all events, if there are several types of them."""
    query = "SELECT alike FROM told WHERE reason IS NULL AND alike IS NOT NULL GROUP BY alike"
    types = [row["alike"] for row in engine.rows(f"{query} ORDER BY COUNT(*) DESC, alike LIMIT {MOST_TYPES + 1}")]
    if len(types) > 1 and (spec.type or len(types) <= MOST_TYPES):
        name = "" if spec.type else f"events.type: {column}, and "
        raise DataError(
            f"{key}: within alone takes events of all types, and column {column} of the events has "
            f"{', '.join(types[:10])}; write {name}types: [{types[0]}] beside within, with each type that counts"
        )


def label(name: str, spec: LabelSpec, engine: Engine, report: BuildReport) -> None:
    """Makes `labelled_NAME`: page_no and item_key of the impressions that an event labels.

    Each event goes to the latest time that its user saw its item before it, if that was not too long before. If that
    was an impression that is dropped, the event labels nothing: it must not move to an earlier page view.
    """
    events = f"(SELECT user_key, item_key, us FROM acts WHERE {of_types(spec.types)}) AS e"
    # An impression is numbered among those of its user and item; an event gets the number of the last one before it.
    # Impressions that no event is about, most of them, are left out first.
    engine.table(
        "numbered",
        f"""
        SELECT *, SUM(is_shown) OVER (
            PARTITION BY user_key, item_key ORDER BY us, is_shown DESC, page_no, kept
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS seen
        FROM (
            SELECT user_key, item_key, us, page_no, kept, 1 AS is_shown
            FROM showings AS s
            WHERE EXISTS (SELECT 1 FROM {events} WHERE e.user_key = s.user_key AND e.item_key = s.item_key)
            UNION ALL
            SELECT user_key, item_key, us, 0 AS page_no, 0 AS kept, 0 AS is_shown FROM {events}
        ) AS together
        """,
    )
    pairs = f"""
        FROM (SELECT * FROM numbered WHERE is_shown = 1) AS s JOIN (SELECT * FROM numbered WHERE is_shown = 0) AS e
        ON s.user_key = e.user_key AND s.item_key = e.item_key AND s.seen = e.seen
        AND e.us - s.us <= {(spec.within or 0) * SECOND}
        """
    engine.table(f"labelled_{name}", f"SELECT DISTINCT s.page_no, s.item_key {pairs} AND s.kept = 1")
    total = engine.rows(f"SELECT COUNT(*) AS n FROM {events}")[0]["n"]
    found = {row["kept"]: row["n"] for row in engine.rows(f"SELECT s.kept, COUNT(*) AS n {pairs} GROUP BY s.kept")}
    report.add(name, "read", "events of users with a page view", total)
    report.add(name, "dropped", "of an impression that is dropped", found.get(0, 0))
    missed = total - sum(found.values())
    report.add(name, "dropped", f"no impression of the item in the {spec.within} s before", missed)
    engine.drop("numbered")


def of_types(types: tuple[str, ...]) -> str:
    """A condition for events of some types; no types: all events."""
    return f"type IN ({', '.join(literal(each) for each in types)})" if types else "TRUE"


def used_acts(spec: LogSpec) -> str:
    """A condition for the events that some behaviour sequence takes."""
    return " OR ".join(of_types(sequence.types) for sequence in spec.sequences.values()) or "FALSE"
