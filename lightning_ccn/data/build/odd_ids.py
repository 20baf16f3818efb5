"""Ids that are probably no ids, or one id in two spellings: nobody can know, so a build says it and goes on."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_ccn.data.build.build_report import BuildReport
from lightning_ccn.data.build.engine import Engine, literal

NOTHING = ("nan", "null", "none", "nil", "na", "n/a", "<na>", "nat", "\\n", "undefined")  # in small letters


def warn_of_nothing(what: str, query: str, engine: Engine, report: BuildReport) -> None:
    """Warns of words that mean that there is no id.

    Args:
        what: What the ids are of, for the message.
        query: A query of them, as `id`.
        engine: The engine.
        report: Takes the warning.
    """
    words = ", ".join(literal(word) for word in NOTHING)
    found = engine.rows(f"SELECT MIN(id) AS id FROM ({query}) AS ids WHERE LOWER(id) IN ({words})")[0]["id"]
    if found is not None:
        report.warnings.append(
            f"{what}: {found!r} counts as an id like any other; if it says that there is none, leave the field empty"
        )


def warn_of_two_spellings(
    tables: Mapping[str, str], more: Mapping[str, str], engine: Engine, report: BuildReport
) -> None:
    """Warns of ids that differ in spaces around them, or in the `.0` of an integer that was written as a float.

    Args:
        tables: By name of a table whose ids are text, the engine's view of them.
        more: By name of a table, a query of ids that may lack a row in it, as `id`.
        engine: The engine.
        report: Takes the warnings.
    """
    for table, view in tables.items():
        bare = "TRIM(id)"
        plain = (
            f"CASE WHEN REGEXP_MATCHES({bare}, '^[0-9]+[.]0$') THEN SUBSTR({bare}, 1, LENGTH({bare}) - 2) "
            f"ELSE {bare} END"
        )
        ids = f"SELECT id FROM {view}" + (f" UNION ALL {more[table]}" if table in more else "")
        odd = f"SELECT id, plain FROM (SELECT id, {plain} AS plain FROM ({ids}) AS ids) AS each WHERE id <> plain"
        query = f"SELECT o.id AS id, o.plain AS plain FROM ({odd}) AS o JOIN {view} AS r ON o.plain = r.id"
        for row in engine.rows(f"{query} ORDER BY o.id LIMIT 1"):
            report.warnings.append(
                f"ids of table {table}: {row['id']!r} and {row['plain']!r} count as two; if they are one, write them "
                "alike in all tables"
            )
