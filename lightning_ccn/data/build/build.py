"""`ccn data build`: from a raw log to a dataset folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning_ccn.data.build.build_report import BuildReport, Progress
from lightning_ccn.data.build.catalogue import item_columns, read_catalogue, refuse_other_items
from lightning_ccn.data.build.duckdb_engine import DuckDBEngine
from lightning_ccn.data.build.engine import Engine
from lightning_ccn.data.build.events import label, of_types, read_events
from lightning_ccn.data.build.going_on import go_on
from lightning_ccn.data.build.histories import Histories
from lightning_ccn.data.build.ids import Ids
from lightning_ccn.data.build.impressions import Impressions
from lightning_ccn.data.build.journal import ResumingEngine
from lightning_ccn.data.build.lists import lists_of
from lightning_ccn.data.build.log_files import LISTS, NUMBERS, LogFiles, find_log
from lightning_ccn.data.build.odd_ids import warn_of_nothing, warn_of_two_spellings
from lightning_ccn.data.build.page_views import keep_pages
from lightning_ccn.data.build.page_writer import PageWriter
from lightning_ccn.data.build.profiles import read_profiles
from lightning_ccn.data.build.read_spec import read_spec
from lightning_ccn.data.build.seen_ids import seen_ids
from lightning_ccn.data.build.source_specs import FeatureSpec, VectorSpec
from lightning_ccn.data.build.spark_engine import SparkEngine
from lightning_ccn.data.build.spec import USER, LogSpec
from lightning_ccn.data.build.stamp import STAMP, is_built, is_checked, note_checked, stamp, to_json
from lightning_ccn.data.build.vectors import read_vectors, write_vectors
from lightning_ccn.data.check.check import check
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.new_folder import refuse_filled
from lightning_ccn.data.new_store_folder import NewStoreFolder
from lightning_ccn.data.page_row import ITEM
from lightning_ccn.data.places import place
from lightning_ccn.data.store_path import StorePath
from lightning_ccn.data.store_upload import move_to_store
from lightning_ccn.data.writer import DatasetWriter

OTHERWISE = "name another folder, or remove it"
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
        folder: Dataset folder to write; if it was built from the same, there is nothing to do. To an address in a store
            it is uploaded when it is whole and checked; until then it is in the current folder, as `NAME.upload`.
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
    specification, out = Path(specification), place(folder)
    folder = Path(f"{out.name}.upload") if isinstance(out, StorePath) else out
    spec = read_spec(specification)
    files = _files(spec, specification.parent)
    older = None if extends is None else Dataset.open(extends)
    of_this = stamp(spec, list(files.values()), older)
    if is_built(out, of_this):
        report = BuildReport(folder=out, built=False)
        if isinstance(out, Path) and not is_checked(out):  # the build was interrupted before, or found errors
            _check(out, report, say)
        return report
    if isinstance(out, StorePath):
        NewStoreFolder(out, OTHERWISE).discard()  # says before hours of work whether it may be written
        if is_built(folder, of_this):  # of a build whose upload has failed
            _upload(folder, out, Progress(say))
            return BuildReport(folder=out, built=False)
    refuse_filled(folder, OTHERWISE)
    log_bytes = sum(path.stat().st_size for each in files.values() for path in each.paths)

    def make(place: Path) -> DuckDBEngine | SparkEngine:
        return SparkEngine(place) if engine == "spark" else DuckDBEngine(place, memory_limit, threads, log_bytes)

    def build(place: Path, runs: Engine, latest: int) -> BuildReport:
        progress = Progress(say, lambda: runs.statements if isinstance(runs, ResumingEngine) else (0, 0))
        return _Build(spec, files, runs, place, older, progress, latest).run(folder, of_this)

    report = go_on(folder, {**of_this, "engine": engine}, int(time.time()) + TOLERANCE, make, build, say)
    _check(folder, report, say)
    if isinstance(out, StorePath) and not report.faults:
        _upload(folder, out, Progress(say))
        report.folder = out
    return report


def _check(folder: Path, report: BuildReport, say: Callable[[str], None]) -> None:
    with Progress(say).stage("dataset folder checked") as count:
        checked = check(folder)
        count(sum(split.pages for split in checked.splits.values()))
    report.faults, report.checked = checked.errors, True
    for name, of_split in checked.splits.items():
        if not of_split.pages:
            say(f"warning: split.{name} of the specification leaves no page view in {name}/")
    for warning in checked.warnings:
        say(warning)
    if not report.faults:
        note_checked(folder)


def _upload(folder: Path, out: StorePath, progress: Progress) -> None:
    with progress.stage("files uploaded") as count:
        count(move_to_store(folder, out, last="stats.json", otherwise=OTHERWISE))


def _files(spec: LogSpec, base: Path) -> dict[str, LogFiles]:
    sources = {"exposures": spec.exposures, "events": spec.events, "users": spec.users, "items": spec.items}
    found = {
        name: find_log(name, source.files, base, source.delimiter)
        for name, source in sources.items()
        if source is not None
    }
    for at, vector in enumerate(spec.vectors):
        name = f"items.vectors.{at}"
        found[name] = find_log(name, vector.files, base, None) if vector.files else found["items"]
    return found


@dataclass
class _Build:
    """The state of one build."""

    spec: LogSpec
    files: dict[str, LogFiles]
    engine: Engine
    work: Path
    older: Dataset | None
    progress: Progress
    latest: int

    def run(self, folder: Path, of_this: dict[str, Any]) -> BuildReport:
        spec, engine, progress, report = self.spec, self.engine, self.progress, BuildReport(folder=folder)
        text_ids, latest = self._text_ids(), self.latest
        of_users = self._many("users", spec.profile, "users.features")
        of_items = self._many("items", spec.attributes, "items.attributes")
        spec.schema(dict.fromkeys(spec.tables, 2), of_users | of_items)  # refuses now what it would refuse at the end
        impressions = Impressions(spec.exposures, self.files["exposures"], engine, text_ids, latest)
        impressions.read(report, progress)
        cuts = keep_pages(spec.exposures, spec.split, engine, report)
        visitors = engine.number(
            "visitors", "SELECT user_key, MAX(sec) AS last_sec FROM pages GROUP BY user_key", "user_key", "user_no"
        )
        if spec.events:
            named = {f"exposures.{name}.types": given.types for name, given in spec.labels.items()}
            of_all = [f"exposures.{name}" for name, given in spec.labels.items() if given.of_events and not given.types]
            named |= {f"behaviours.{name}.types": sequence.types for name, sequence in spec.sequences.items()}
            read_events(spec.events, self.files["events"], engine, text_ids, latest, named, of_all, report, progress)
            for name, given in spec.labels.items():
                if given.of_events:
                    with progress.stage(f"{name} joined") as count:
                        label(name, given, engine, report)
                        count(report.counts[name]["read"]["events of users with a page view"])
        if spec.users:
            with progress.stage("profiles read") as count:
                count(read_profiles(spec.users, self.files["users"], engine, text_ids, report))
        if spec.items:
            with progress.stage("items read") as count:
                count(read_catalogue(spec.items, self.files["items"], engine, text_ids, report))
                if self.older is None:  # else the table may be of new items alone
                    refuse_other_items(spec.items, self.files["items"], engine)
        widths = {}
        for at, vector in enumerate(spec.vectors):
            with progress.stage(f"vectors {vector.called} read") as count:
                own = self.files[f"items.vectors.{at}"]
                widths[vector.called] = read_vectors(
                    vector, self._item_of(vector), at, own, engine, text_ids[ITEM], report
                )
                count(report.counts["vectors"]["read"][vector.called])
        ids = Ids(engine, self.work, self.older)
        with progress.stage("ids counted") as count:
            for table in spec.tables:
                seen = " UNION ALL ".join(seen_ids(spec, table, of_users | of_items, cuts))
                count(ids.add(table, spec.rows_view(table), seen, spec.admission(table), text_ids[table]))
        self._look_at_ids(impressions, text_ids, report)
        ids.warn_of_another_log(report)
        items = item_columns(spec, engine, ids, of_items, self.older)
        histories = self._histories(visitors)
        schema = spec.schema(ids.sizes, of_users | of_items, widths)
        places = {f.called: at for at, f in enumerate(spec.profile) if f.called in of_users}
        with DatasetWriter(folder, schema, items) as writer:
            with progress.stage("page views written") as count:
                count(PageWriter(spec, engine, impressions, places, histories, report).write(writer))
            report.splits = dict(writer.stats)
            of_this = {**of_this, "examples": report.examples}
            extra = {"report.json": report.to_json(), STAMP: to_json(of_this)}
            write_vectors(spec, writer.part, engine, ids, widths, self.older)
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
        for at, vector in enumerate(spec.vectors):
            note(ITEM, f"items.vectors.{at}", self._item_of(vector), "item")
        for name, features in (
            ("exposures", spec.exposures.features),
            ("users", spec.profile),
            ("items", spec.attributes),
        ):
            for feature in features:
                note(feature.table_name, name, feature.column, "attributes" if name == "items" else "features")
        return {table: any(kind not in NUMBERS for kind in found) for table, found in kinds.items()}

    def _look_at_ids(self, impressions: Impressions, text_ids: dict[str, bool], report: BuildReport) -> None:
        views = {table: self.spec.rows_view(table) for table in (USER, ITEM) if text_ids[table]}
        for key, column in impressions.texts.items():
            warn_of_nothing(f"page views, column {column}", f"SELECT {key} AS id FROM pages", self.engine, report)
        for table, view in views.items():
            warn_of_nothing(f"table {table}", f"SELECT id FROM {view}", self.engine, report)
        more = {ITEM: "SELECT item_key AS id FROM catalogue"} if self.spec.items else {}
        warn_of_two_spellings(views, more, self.engine, report)

    def _item_of(self, vector: VectorSpec) -> str:
        """The column of the item's id beside a vector."""
        assert self.spec.items is not None  # which names the vectors
        return vector.item or self.spec.items.item

    def _many(self, name: str, features: tuple[FeatureSpec, ...], where: str) -> frozenset[str]:
        return lists_of(features, self.files[name], where) if features else frozenset()

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
