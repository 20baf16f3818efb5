"""`ccn data build`: from a raw log to a dataset folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq

from lightning_ccn.data.build.build_report import BuildReport, Progress
from lightning_ccn.data.build.duckdb_engine import DuckDBEngine
from lightning_ccn.data.build.engine import Engine
from lightning_ccn.data.build.events import label, of_types, read_events, used_acts
from lightning_ccn.data.build.histories import Histories
from lightning_ccn.data.build.ids import Ids
from lightning_ccn.data.build.impressions import Impressions
from lightning_ccn.data.build.log_files import LISTS, NUMBERS, LogFiles, find_log
from lightning_ccn.data.build.page_views import keep_pages
from lightning_ccn.data.build.page_writer import PageWriter
from lightning_ccn.data.build.profiles import lists_of, read_catalogue, read_profiles
from lightning_ccn.data.build.read_spec import read_spec
from lightning_ccn.data.build.spark_engine import SparkEngine
from lightning_ccn.data.build.spec import USER, LogSpec
from lightning_ccn.data.build.stamp import STAMP, is_built, stamp, to_json
from lightning_ccn.data.check.check import check
from lightning_ccn.data.convert.pages import Cuts
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.new_folder import NewFolder, refuse_filled
from lightning_ccn.data.page_row import ITEM
from lightning_ccn.data.writer import DatasetWriter
from lightning_ccn.errors import DataError

TOLERANCE = 86_400  # seconds; a clock of another machine may be ahead


def say_now(line: str) -> None:
    """Prints a line at once, also into a file."""
    print(line, flush=True)


def build_log(
    specification: str | Path,
    folder: str | Path,
    *,
    engine: Literal["duckdb", "spark"] = "duckdb",
    memory_limit: str = "4GB",
    threads: int = 0,
    extends: str | Path | None = None,
    say: Callable[[str], None] = say_now,
) -> BuildReport:
    """Writes a dataset folder from a raw log.

    Args:
        specification: YAML file that says what the log calls things.
        folder: Dataset folder to write; if it was built from the same, there is nothing to do.
        engine: `duckdb` runs in this process; `spark` in the session of `spark-submit`, or in one of this machine.
        memory_limit: How much memory DuckDB may use before it writes to disk, beside the folder.
        threads: Number of DuckDB's threads; 0: one per core.
        extends: Older dataset folder to extend: its ids keep their rows, and new ids get further rows.
        say: Takes a line on each stage when it ends.

    Returns:
        Counts of what was read, dropped and kept; they are also written to report.json in the folder.

    Raises:
        DataError: The specification or the log is wrong, or the folder cannot be written.
        OptionError: An option is out of range.
    """
    specification, folder = Path(specification), Path(folder)
    spec = read_spec(specification)
    files = _files(spec, specification.parent)
    older = None if extends is None else Dataset.open(extends)
    of_this = stamp(spec, list(files.values()), older)
    if is_built(folder, of_this):
        return BuildReport(folder=folder, built=False)
    refuse_filled(folder, "name another folder, or remove it")
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        work = NewFolder(folder.absolute().with_name(f".{folder.absolute().name}.work"), "remove it")
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror}; name another folder") from None
    try:
        runs: Engine
        if engine == "spark":
            runs = SparkEngine(work.part)
        else:
            size = sum(path.stat().st_size for each in files.values() for path in each.paths)
            runs = DuckDBEngine(work.part, memory_limit, threads, size)
        try:
            report = _Build(spec, files, runs, work.part, older, Progress(say)).run(folder, of_this)
        finally:
            runs.close()
    finally:
        work.discard()
    with Progress(say).stage("dataset folder checked") as count:
        checked = check(folder)
        count(sum(split.pages for split in checked.splits.values()))
    report.faults = checked.errors
    for name, of_split in checked.splits.items():
        if not of_split.pages:
            say(f"warning: split.{name} of the specification leaves no page view in {name}/")
    for warning in checked.warnings:
        say(warning)
    return report


def _files(spec: LogSpec, base: Path) -> dict[str, LogFiles]:
    sources = {"exposures": spec.exposures, "events": spec.events, "users": spec.users, "items": spec.items}
    return {
        name: find_log(name, source.files, base, source.delimiter)
        for name, source in sources.items()
        if source is not None
    }


@dataclass
class _Build:
    """The state of one build."""

    spec: LogSpec
    files: dict[str, LogFiles]
    engine: Engine
    work: Path
    older: Dataset | None
    progress: Progress

    def run(self, folder: Path, of_this: dict[str, Any]) -> BuildReport:
        spec, engine, progress, report = self.spec, self.engine, self.progress, BuildReport(folder=folder)
        text_ids, latest = self._text_ids(), int(time.time()) + TOLERANCE
        many = self._many()
        impressions = Impressions(spec.exposures, self.files["exposures"], engine, text_ids, latest)
        impressions.read(report, progress)
        cuts = keep_pages(spec.exposures, spec.split, engine, report)
        visitors = engine.number(
            "visitors", "SELECT user_key, MAX(sec) AS last_sec FROM pages GROUP BY user_key", "user_key", "user_no"
        )
        if spec.events:
            named = {f"exposures.{name}.types": given.types for name, given in spec.labels.items()}
            named |= {f"behaviours.{name}.types": sequence.types for name, sequence in spec.sequences.items()}
            read_events(spec.events, self.files["events"], engine, text_ids, latest, named, report, progress)
            for name, given in spec.labels.items():
                if given.types:
                    with progress.stage(f"{name} joined") as count:
                        label(name, given, engine, report)
                        count(report.counts[name]["read"]["events of users with a page view"])
        if spec.users:
            with progress.stage("profiles read") as count:
                count(read_profiles(spec.users, self.files["users"], engine, text_ids, report))
        if spec.items:
            with progress.stage("items read") as count:
                count(read_catalogue(spec.items, self.files["items"], engine, text_ids, report))
        ids = Ids(engine, self.work, self.older)
        with progress.stage("ids counted") as count:
            for table in spec.tables:
                seen = " UNION ALL ".join(self._seen(table, cuts))
                count(ids.add(table, spec.rows_view(table), seen, spec.admission(table), text_ids[table]))
        items = self._items(ids)
        histories = self._histories(visitors)
        schema = spec.schema(ids.sizes, many)
        places = {f.called: at for at, f in enumerate(spec.profile) if f.called in many}
        with DatasetWriter(folder, schema, items) as writer:
            with progress.stage("page views written") as count:
                count(PageWriter(spec, engine, impressions, places, histories, report).write(writer))
            report.splits = dict(writer.stats)
            of_this = {**of_this, "examples": report.examples}
            extra = {"report.json": report.to_json(), STAMP: to_json(of_this)}
            writer.close(items, ids.vocabularies, extra=extra)
        return report

    def _text_ids(self) -> dict[str, bool]:
        """Whether the ids of each table are text: if they are in any file, or in the dataset that is extended."""
        spec, kinds = self.spec, dict[str, list[str]]()

        def note(table: str, name: str, column: str | None, where: str) -> None:
            if column is not None:
                kinds.setdefault(table, []).append(self.files[name].kind(column, f"{name}.{where}").removeprefix(LISTS))

        note(USER, "exposures", spec.exposures.user, "user")
        note(ITEM, "exposures", spec.exposures.item, "item")
        note(ITEM, "exposures", spec.exposures.trigger, "trigger")
        if spec.events:
            note(USER, "events", spec.events.user, "user")
            note(ITEM, "events", spec.events.item, "item")
        if spec.users:
            note(USER, "users", spec.users.user, "user")
        if spec.items:
            note(ITEM, "items", spec.items.item, "item")
        for name, features in (
            ("exposures", spec.exposures.features),
            ("users", spec.profile),
            ("items", spec.attributes),
        ):
            for feature in features:
                note(feature.table_name, name, feature.column, "attributes" if name == "items" else "features")
        return {table: any(kind not in NUMBERS for kind in found) for table, found in kinds.items()}

    def _many(self) -> frozenset[str]:
        return lists_of(self.spec.profile, self.files["users"], "users.features") if self.spec.users else frozenset()

    def _seen(self, table: str, cuts: Cuts) -> list[str]:
        """Queries for the ids of a table, and for how often each occurs before validation."""
        spec, many, found = self.spec, self._many(), []
        early = "SUM(CASE WHEN p.split = 0 THEN 1 ELSE 0 END) AS n"
        if table == USER:
            found.append(f"SELECT p.user_key AS id, {early} FROM pages AS p GROUP BY p.user_key")
        if table == ITEM:
            joined = "shown AS s JOIN pages AS p ON s.page_no = p.page_no"
            found.append(f"SELECT s.item_key AS id, {early} FROM {joined} GROUP BY s.item_key")
            if spec.exposures.trigger:
                found.append(f"SELECT p.trigger_key AS id, {early} FROM pages AS p GROUP BY p.trigger_key")
            if spec.events:
                found.append(
                    f"""
                    SELECT a.item_key AS id, SUM(CASE WHEN a.sec < {cuts.validation} THEN 1 ELSE 0 END) AS n
                    FROM acts AS a JOIN visitors AS v ON a.user_key = v.user_key
                    WHERE a.sec < v.last_sec AND ({used_acts(spec)})
                    GROUP BY a.item_key
                    """
                )
        for at, feature in enumerate(spec.exposures.features):
            if feature.table_name == table:
                found.append(f"SELECT p.f{at} AS id, {early} FROM pages AS p GROUP BY p.f{at}")
        for at, feature in enumerate(spec.profile):
            if feature.table_name == table:
                column, source = ("id", f"many{at}") if feature.called in many else (f"u{at}", "profiles")
                found.append(f"SELECT {column} AS id, COUNT(*) AS n FROM {source} GROUP BY {column}")
        for at, feature in enumerate(spec.attributes):
            if feature.table_name == table:
                joined = f"catalogue AS c JOIN {spec.rows_view(ITEM)} AS r ON c.item_key = r.id"
                found.append(f"SELECT c.a{at} AS id, COUNT(*) AS n FROM {joined} GROUP BY c.a{at}")
        return found

    def _items(self, ids: Ids) -> dict[str, np.ndarray]:
        """Attributes of all items, int64 [rows of the item table] each."""
        spec = self.spec
        columns = {f.called: np.zeros(ids.sizes[ITEM], np.int64) for f in spec.attributes}
        if self.older is not None:
            old = pq.read_table(self.older.folder / "items.parquet")
            if missing := [name for name in columns if name not in old.column_names]:
                raise DataError(f"{self.older.folder}: has no attribute '{missing[0]}'; build without --extends")
            for name, column in columns.items():
                column[: old.num_rows] = old[name].to_numpy()
        if not columns:
            return columns
        rows = [f"COALESCE(r{at}.row, 0) AS row{at}" for at in range(len(columns))]
        joins = [
            f"LEFT JOIN {spec.rows_view(f.table_name)} AS r{at} ON c.a{at} = r{at}.id"
            for at, f in enumerate(spec.attributes)
        ]
        # with a hash, items may share a row: the last one wins
        query = f"""
            SELECT r.row AS row, {", ".join(rows)}
            FROM catalogue AS c JOIN {spec.rows_view(ITEM)} AS r ON c.item_key = r.id {" ".join(joins)}
            ORDER BY r.row, r.id
            """
        for batch in self.engine.stream(query):
            place = batch["row"].to_numpy()
            for at, column in enumerate(columns.values()):
                found = batch[f"row{at}"].to_numpy()
                column[place[found > 0]] = found[found > 0]
        return columns

    def _histories(self, visitors: int) -> dict[str, Histories]:
        """The events of each behaviour sequence; sequences of the same types share them."""
        by_types: dict[tuple[str, ...], Histories] = {}
        for sequence in self.spec.sequences.values():
            if sequence.types in by_types:
                continue
            query = f"""
                SELECT a.user_no AS user_no, COALESCE(r.row, 0) AS item, a.sec AS sec
                FROM acts AS a LEFT JOIN {self.spec.rows_view(ITEM)} AS r ON a.item_key = r.id
                WHERE {of_types(sequence.types)}
                ORDER BY a.user_no, a.us, a.place NULLS LAST, a.item_key, a.type NULLS LAST
                """
            with self.progress.stage("behaviours in order") as count:
                path = self.work / f"acts{len(by_types)}"
                by_types[sequence.types] = Histories(path, visitors, self.engine.stream(query))
                count(by_types[sequence.types].events)
        return {name: by_types[sequence.types] for name, sequence in self.spec.sequences.items()}
