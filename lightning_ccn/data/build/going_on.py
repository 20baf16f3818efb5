"""Runs a build in a work folder beside the dataset folder, in which an interrupted build goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning_ccn.data.build.build_report import BuildReport
from lightning_ccn.data.build.duckdb_engine import DuckDBEngine, NoRoomError
from lightning_ccn.data.build.engine import Engine
from lightning_ccn.data.build.journal import Journal, OtherStatementsError, ResumingEngine, is_begun
from lightning_ccn.data.build.spark_engine import SparkEngine
from lightning_ccn.data.new_folder import NewFolder
from lightning_ccn.errors import DataError, OptionError


def go_on(
    folder: Path,
    of_this: Mapping[str, Any],
    latest: int,
    make: Callable[[Path], DuckDBEngine | SparkEngine],
    build: Callable[[Path, Engine, int], BuildReport],
    say: Callable[[str], None],
) -> BuildReport:
    """Builds, from the last statement on that an interrupted build of the same has finished.

    What an interrupted build has done stays in the work folder, if its tables are on the disk. A build that is refused
    leaves nothing: its log or specification must change.

    Args:
        folder: The dataset folder; the work folder is hidden beside it.
        of_this: What is built from what, as plain values.
        latest: The latest time that is believed, in seconds since 1970.
        make: Makes the engine in the work folder.
        build: Builds, with the work folder, the engine and the latest time; an interrupted build keeps its own one.
        say: Takes a line.

    Raises:
        DataError: The log or the specification is wrong, or a folder cannot be written.
    """
    begun = True
    while True:
        work = _work_folder(folder, of_this if begun else None)
        kept = False
        try:
            engine = make(work.part)
            try:
                if not engine.keeps_tables:
                    return build(work.part, engine, latest)
                journal = Journal(work.part, of_this, latest)
                return build(work.part, ResumingEngine(engine, journal), journal.latest)
            except OtherStatementsError:
                begun = False
            except BaseException as error:
                kept = engine.keeps_tables and (isinstance(error, NoRoomError) or not _is_refusal(error))
                raise
            finally:
                engine.close()
        finally:
            if kept:
                work.leave()
                say(f"what is done is in {work.part}: the same build goes on there; remove it if there will be none")
            else:
                work.discard()


def _is_refusal(error: BaseException) -> bool:
    return isinstance(error, DataError | OptionError)


def _work_folder(folder: Path, of_this: Mapping[str, Any] | None) -> NewFolder:
    def goes_on(part: Path) -> bool:
        return of_this is not None and is_begun(part, of_this)

    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        return NewFolder(folder.absolute().with_name(f".{folder.absolute().name}.work"), "remove it", goes_on)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror}; name another folder") from None
