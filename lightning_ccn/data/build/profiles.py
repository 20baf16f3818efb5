"""The users' profile and the items' catalogue: one row for each, or the one that held at the time of a page view."""

from __future__ import annotations

from lightning_ccn.data.build.build_report import BuildReport
from lightning_ccn.data.build.engine import PLACE, Engine, columns
from lightning_ccn.data.build.log_columns import LogColumns
from lightning_ccn.data.build.log_files import LISTS, LogFiles
from lightning_ccn.data.build.source_specs import CatalogueSpec, FeatureSpec, ProfileSpec
from lightning_ccn.errors import DataError


def lists_of(features: tuple[FeatureSpec, ...], files: LogFiles, where: str) -> frozenset[str]:
    """Names of the features with many values."""
    return frozenset(f.called for f in features if f.separator or files.kind(f.column, where).startswith(LISTS))


def read_profiles(
    spec: ProfileSpec, files: LogFiles, engine: Engine, text_ids: dict[str, bool], report: BuildReport
) -> int:
    """Makes `profiles` of the users with a page view, and `page_versions`, which row of it each page view gets.

    `profiles` has user_key, version, and u0, u1, ... for the features with one value; `many0`, ... (by the place of the
    feature) have user_key, version, place and id for a feature with many values.

    Returns:
        The number of rows.

    Raises:
        DataError: A column is missing, or cannot hold what it should.
    """
    of, many = LogColumns(files, engine), lists_of(spec.features, files, "users.features")
    values = {
        "user_key": of.key(spec.user, "users.user", text_ids["user"]),
        "us": of.micros(spec.since, "users.since") if spec.since else "0",
    }
    raw = {}
    for at, feature in enumerate(spec.features):
        if feature.called in many:
            raw[f"u{at}"] = of.text(feature.column, "users.features") if feature.separator else f'"{feature.column}"'
        else:
            values[f"u{at}"] = of.key(feature.column, "users.features", text_ids[feature.table_name])
    engine.read("raw_users", files)
    names = [*values, *raw]
    own = ", ".join(f"t.{name}" for name in names)
    engine.table(
        "described",
        f"""
        SELECT {own}
        FROM (SELECT {columns({**values, **raw})} FROM raw_users) AS t JOIN visitors AS v ON t.user_key = v.user_key
        """,
    )
    report.broken_lines("users", engine, "raw_users")
    order = ", ".join(f"{name} NULLS LAST" for name in names[1:])
    kept = engine.table(
        "profiles",
        f"""
        SELECT *, ROW_NUMBER() OVER (PARTITION BY user_key ORDER BY {order}) AS version
        FROM described
        WHERE us IS NOT NULL
        """,
    )
    summary = """
        SELECT 'no time since when it holds' AS reason, COUNT(*) AS count, MIN(CAST(user_key AS VARCHAR)) AS example
        FROM described WHERE us IS NULL HAVING COUNT(*) > 0
        """
    report.dropped("users", engine, summary)
    again = """
        SELECT 'another row of the same user and time' AS reason, COUNT(*) AS count,
            MIN('user ' || CAST(user_key AS VARCHAR)) AS example
        FROM (SELECT user_key, ROW_NUMBER() OVER (PARTITION BY user_key, us ORDER BY version) AS nth FROM profiles) AS n
        WHERE nth > 1 HAVING COUNT(*) > 0
        """
    report.dropped("users", engine, again)
    engine.drop("described")
    for at, feature in enumerate(spec.features):
        if feature.called in many:
            column = f"u{at}"
            apart = engine.apart(f"SELECT user_key, version, {column} FROM profiles", column, feature.separator)
            kind = files.kind(feature.column, "users.features").removeprefix(LISTS)
            alone = LogColumns(_alone(files, column, kind), engine)
            value = alone.key(column, "users.features", text_ids[feature.table_name])
            engine.table(
                f"many{at}", f"SELECT user_key, version, {PLACE} AS place, {value} AS id FROM ({apart}) AS each"
            )
    # a row that begins at the time of the page holds for it
    engine.table(
        "page_versions",
        """
        SELECT page_no, user_key, version
        FROM (
            SELECT *, SUM(1 - is_page) OVER (
                PARTITION BY user_key ORDER BY us, is_page, page_no
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            ) AS version
            FROM (
                SELECT page_no, user_key, us, 1 AS is_page FROM pages
                UNION ALL
                SELECT 0 AS page_no, user_key, us, 0 AS is_page FROM profiles
            ) AS together
        ) AS found
        WHERE is_page = 1
        """,
    )
    return kept


def read_catalogue(
    spec: CatalogueSpec, files: LogFiles, engine: Engine, text_ids: dict[str, bool], report: BuildReport
) -> int:
    """Makes `catalogue`: item_key, a0, a1, ... for the attributes, c0, c1, ... for the numbers; one row an item.

    Returns:
        The number of items.

    Raises:
        DataError: A column is missing, or an attribute has many values.
    """
    of = LogColumns(files, engine)
    if many := sorted(lists_of(spec.attributes, files, "items.attributes")):
        raise DataError(
            f"{files.paths[0]}: column {many[0]}: an item has one value of each attribute; choose one of them"
        )
    values = {"item_key": of.key(spec.item, "items.item", text_ids["item"])}
    for at, feature in enumerate(spec.attributes):
        values[f"a{at}"] = of.key(feature.column, "items.attributes", text_ids[feature.table_name])
    for at, number in enumerate(spec.numbers):
        values[f"c{at}"] = of.number(number.column, "items.numbers")
    odd = {f"odd_c{at}": of.no_number(number.column, "items.numbers") for at, number in enumerate(spec.numbers)}
    engine.read("raw_items", files)
    order = ", ".join(f"{name} NULLS LAST" for name in values)
    engine.table(
        "versions",
        f"""
        SELECT *, ROW_NUMBER() OVER (PARTITION BY item_key ORDER BY {order}) AS version
        FROM (SELECT {columns({**values, **odd})} FROM raw_items) AS typed
        """,
    )
    numbers = {number.called: (f"c{at}", f"odd_c{at}") for at, number in enumerate(spec.numbers)}
    report.no_numbers(engine, "versions", numbers, "items.numbers")
    report.broken_lines("catalogue", engine, "raw_items")
    reason = "CASE WHEN item_key IS NULL THEN 'no item' WHEN version > 1 THEN 'another row of the same item' END"
    report.dropped(
        "catalogue",
        engine,
        f"""
        SELECT reason, COUNT(*) AS count, MIN(example) AS example
        FROM (
            SELECT {reason} AS reason, 'item ' || COALESCE(CAST(item_key AS VARCHAR), 'null') AS example FROM versions
        ) AS judged
        GROUP BY reason
        """,
    )
    chosen = f"SELECT {', '.join(values)} FROM versions WHERE version = 1 AND item_key IS NOT NULL"
    kept = engine.table("catalogue", chosen)
    engine.drop("versions")
    return kept


def _alone(files: LogFiles, column: str, kind: str) -> LogFiles:
    """The same files with one column, under the name and of the kind that it has in a table of the engine."""
    return LogFiles(files.name, files.paths, {column: kind}, (), files.delimiter, ())
