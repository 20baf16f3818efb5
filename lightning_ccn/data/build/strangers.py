"""Tables of a log whose ids have nothing in common: one of them writes ids in another way."""

from __future__ import annotations

from lightning_ccn.data.build.engine import Engine
from lightning_ccn.data.build.log_files import LogFiles
from lightning_ccn.errors import DataError


def one_of_each(theirs: str, ours: str, engine: Engine) -> list[str | None]:
    """An id of each of two queries, which have it as `id`; None: a query has no row."""
    return [engine.rows(f"SELECT MIN(CAST(id AS VARCHAR)) AS id FROM ({q}) AS ids")[0]["id"] for q in (theirs, ours)]


def refuse_strangers(files: LogFiles, column: str, theirs: str, ours: str, engine: Engine) -> None:
    """Refuses a table of which no row is about anything in the impressions, unless it has no row.

    Args:
        files: The files of the table.
        column: The column of its ids.
        theirs: A query of its ids, as `id`.
        ours: A query of those of the impressions, as `id`.
        engine: The engine.

    Raises:
        DataError: It has an id; the message shows one of each.
    """
    there, here = one_of_each(theirs, ours, engine)
    if there is not None:
        raise DataError(
            f"{files.paths[0]}: column {column}: none of its ids, such as {there!r}, is in the impressions, which have "
            f"ids such as {here!r}; write ids alike in all tables, or leave {files.name}: out"
        )
