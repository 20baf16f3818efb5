"""The users' profile: one row for each, or the one that held at the time of a page view."""

from __future__ import annotations

from lightning_ccn.data.build.build_report import BuildReport
from lightning_ccn.data.build.engine import Engine, columns, quoted
from lightning_ccn.data.build.impressions import SECOND
from lightning_ccn.data.build.lists import lists_of, take_apart, whole_list
from lightning_ccn.data.build.log_columns import LogColumns
from lightning_ccn.data.build.log_files import LogFiles
from lightning_ccn.data.build.source_specs import ProfileSpec, TimeSpec
from lightning_ccn.data.build.strangers import refuse_strangers
from lightning_ccn.errors import DataError

JANUARY = 31 * 86_400  # seconds, of 1970


def read_profiles(
    spec: ProfileSpec, files: LogFiles, engine: Engine, text_ids: dict[str, bool], report: BuildReport
) -> int:
    """Makes `profiles` of the users with a page view, and `page_versions`, which row of it each page view gets.

    `profiles` has user_key, version, u0, u1, ... for the features with one value, and x0, x1, ... for the numbers;
    `many0`, ... (by the place of the feature) have user_key, version, place and id for a feature with many values.

    Returns:
        The number of rows.

    Raises:
        DataError: A column is missing, or cannot hold what it should.
    """
    of, many = LogColumns(files, engine), lists_of(spec.features, files, "users.features")
    values = {
        "user_key": of.key(spec.user, "users.user", text_ids["user"]),
        "us": of.micros(spec.since, "users.since") if spec.since else "0",
        "end_us": of.micros(spec.until, "users.until") if spec.until else "CAST(NULL AS BIGINT)",
    }
    odd = {"odd_end": _no_end(spec.until, of) if spec.until else "CAST(NULL AS VARCHAR)"}
    raw = {}
    for at, feature in enumerate(spec.features):
        if feature.called in many:
            raw[f"u{at}"] = whole_list(feature, of, "users.features")
        else:
            values[f"u{at}"] = of.key(feature.column, "users.features", text_ids[feature.table_name])
    for at, number in enumerate(spec.numbers):
        raw[f"x{at}"] = of.number(number.column, "users.numbers")
        odd[f"odd_x{at}"] = of.no_number(number.column, "users.numbers")
    engine.read("raw_users", files)
    names = [*values, *raw]
    own = ", ".join(f"t.{name}" for name in (*names, *odd))
    found = engine.table(
        "described",
        f"""
        SELECT {own}
        FROM (SELECT {columns({**values, **raw, **odd})} FROM raw_users) AS t
        JOIN visitors AS v ON t.user_key = v.user_key
        """,
    )
    if not found:
        theirs = f"SELECT {values['user_key']} AS id FROM raw_users"
        refuse_strangers(files, spec.user, theirs, "SELECT user_key AS id FROM visitors", engine)
    numbers = {number.called: (f"x{at}", f"odd_x{at}") for at, number in enumerate(spec.numbers)}
    report.no_numbers(engine, "described", numbers, "users.numbers")
    report.broken_lines("users", engine, "raw_users")
    order = ", ".join(f"{name} NULLS LAST" for name in names[1:])
    kept = engine.table(
        "profiles",
        f"""
        SELECT *, ROW_NUMBER() OVER (PARTITION BY user_key ORDER BY {order}) AS version
        FROM described
        WHERE us IS NOT NULL AND odd_end IS NULL AND (end_us IS NULL OR end_us > us)
        """,
    )
    if spec.until:
        _refuse_no_end(spec.until, files, engine)
    if spec.since:
        _refuse_other_unit(spec.since, files, engine)
    summary = """
        SELECT reason, COUNT(*) AS count, MIN(example) AS example
        FROM (
            SELECT
                CASE
                    WHEN us IS NULL THEN 'no time since when it holds'
                    WHEN odd_end IS NOT NULL THEN 'its end is no time'
                    WHEN end_us <= us THEN 'it ends before it begins'
                END AS reason,
                'user ' || CAST(user_key AS VARCHAR) || COALESCE(', end ' || odd_end, '') AS example
            FROM described
        ) AS judged
        WHERE reason IS NOT NULL GROUP BY reason
        """
    if report.dropped("users", engine, summary) == found > 0:
        why = "; ".join(f"{reason}: for example {example}" for reason, example in report.examples["users"].items())
        raise DataError(f"{files.paths[0]}: no profile is left of {found:,}: {why}")
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
            as_text, keys = text_ids[feature.table_name], "user_key, version"
            take_apart(f"many{at}", "profiles", keys, f"u{at}", feature, files, "users.features", as_text, engine)
    # a row that begins at the time of the page holds for it, and one that ends then does not; 0 is no row
    engine.table(
        "page_versions",
        """
        SELECT f.page_no, f.user_key, CASE WHEN p.end_us <= f.us THEN 0 ELSE f.version END AS version
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
        ) AS f
        LEFT JOIN profiles AS p ON f.user_key = p.user_key AND f.version = p.version
        WHERE f.is_page = 1
        """,
    )
    return kept


def _no_end(until: TimeSpec, of: LogColumns) -> str:
    """The text of an end that is no time, VARCHAR; null if there is none, or one after all times: the row holds on."""
    value = quoted(until.column)
    given = f"TRIM(CAST({value} AS VARCHAR)) <> ''"
    if of.kind(until.column, "users.until") == "float":
        given = f"NOT ISNAN({value})"  # as pandas writes a missing number
    time = f"COALESCE({of.micros(until, 'users.until')}, {of.beyond(until, 'users.until')})"
    return f"CASE WHEN {given} AND {time} IS NULL THEN CAST({value} AS VARCHAR) END"


def _refuse_no_end(until: TimeSpec, files: LogFiles, engine: Engine) -> None:
    """Some ends may be no times; but if none is one, the column is probably misread.

    Raises:
        DataError: No value of the column is a time.
    """
    row = engine.rows("SELECT COUNT(end_us) AS ends, MIN(odd_end) AS example FROM described")[0]
    if row["example"] is not None and not row["ends"]:
        raise DataError(
            f"{files.paths[0]}: column {until.column}: users.until names it, but no row ends: {row['example']} is no "
            f"time in {until.unit or 'seconds or as a date'}; name its unit, or leave until: out"
        )


def _refuse_other_unit(since: TimeSpec, files: LogFiles, engine: Engine) -> None:
    """Seconds that are taken for milliseconds are of January 1970: every page would get the user's latest row.

    Raises:
        DataError: All rows begin then, and not all at 0, which says that they always held.
    """
    last = engine.rows("SELECT MAX(us) AS last FROM described")[0]["last"]
    if last is not None and 0 < last < JANUARY * SECOND:
        raise DataError(
            f"{files.paths[0]}: column {since.column}: all rows begin in January 1970, by users.since; name the unit "
            f"of its numbers, as in {{column: {since.column}, unit: s}}"
        )
