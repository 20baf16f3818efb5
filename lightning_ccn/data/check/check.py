"""`ccn data check`: finds all errors of a dataset folder, which another job may have written."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lightning_ccn.data import page_row
from lightning_ccn.data.check.collisions import collisions, estimated_collisions
from lightning_ccn.data.check.counted import stale
from lightning_ccn.data.check.cut_mark import CutMark
from lightning_ccn.data.check.far_ids import FarIds
from lightning_ccn.data.check.page_ids import PageIds
from lightning_ccn.data.check.report import CheckReport, Messages, utc
from lightning_ccn.data.check.row_groups import RowGroups
from lightning_ccn.data.check.signs import Signs
from lightning_ccn.data.check.vectors import check_vectors
from lightning_ccn.data.columns import Column, page_columns
from lightning_ccn.data.dataset import SPLITS, Dataset
from lightning_ccn.data.parquet import PageRows, decode, open_part, parts_of
from lightning_ccn.data.places import Place, place
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.rules import SHOWN, row_problems, scan_items, type_problems
from lightning_ccn.data.schema import Schema, read_schema
from lightning_ccn.data.store_path import StorePath
from lightning_ccn.data.vocabulary import Vocabulary
from lightning_ccn.data.writer import Tally, write_stats
from lightning_ccn.errors import DataError

FILES = ("schema.yaml", "items.parquet", "stats.json", "vocabulary", "vectors", *SPLITS)
BESIDE_DATA = ("world.yaml", "report.json", "page_ids")  # what a world, a converter and `ccn data build` add for people


def check(folder: str | Place, write_stats: bool = False) -> CheckReport:
    """Checks every value of a dataset folder, one row group at a time.

    Memory: 16 bytes per page view (to find repeated page ids), one byte per row of each table, items.parquet, the
    largest vocabulary, and what `Copies` keeps in mind.

    Args:
        folder: Dataset folder to check; stats.json may be missing.
        write_stats: Write stats.json if there are no errors. A folder that another job wrote needs this once.

    Returns:
        The report. A bad folder does not raise an error.
    """
    folder = place(folder)
    try:
        if isinstance(folder, StorePath):
            folder.refuse_missing()
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        schema = read_schema(folder)
    except DataError as error:
        return CheckReport(folder, errors=[str(error)])
    return _Check(folder, schema).run(write_stats)


class _Check:
    """The state of one `check`."""

    def __init__(self, folder: Place, schema: Schema) -> None:
        self.folder, self.schema = folder, schema
        self.errors, self.warnings = Messages(), Messages()
        self.notes: list[str] = []
        self.unwritten = ""
        self.tally = Tally(schema)
        self.signs, self.row_groups, self.far_ids = Signs(schema), RowGroups(schema), FarIds(schema)
        self.cut_mark: CutMark | None = None
        self.hashed = {name for name, table in schema.tables.items() if table.mapping == "hash"}
        self.page_ids = PageIds()
        self.pages: dict[str, int] = {}  # of each split that could be read
        self.spans: dict[str, list[tuple[int, str]]] = {}  # split -> (time, place) of its first and last page

    def run(self, write: bool) -> CheckReport:
        self._items()
        for split in SPLITS:
            self._split(split)
        self._strangers()
        self._empty_splits()
        self.errors.add("far ids", list(self.far_ids.errors()))
        self.errors.add("page ids", *self.page_ids.repeated())
        self._time_order()
        digests = self._vocabularies()
        for name, table in self.schema.tables.items():
            if name not in (seen := self.signs.usage.seen):
                self.notes.append(f"table {name}: {table.rows:,} rows are too many to note which are used")
            elif name in self.hashed:
                self.notes.append(f"table {name} (hash): {estimated_collisions(seen[name] != 0)}")
        self.warnings.add("row groups", list(self.row_groups.warnings(self.folder)))
        for kind, lines in self.signs.warnings(self.folder):
            self.warnings.add(kind, lines)
        self._stats(write, digests)
        found = self.warnings.lines(), self.errors.lines()
        figures, counted = self.signs.figures(), self.signs.plain()
        return CheckReport(self.folder, self.tally.splits, figures, self.notes, *found, self.unwritten, counted)

    def _items(self) -> None:
        try:
            items, problems = scan_items(self.folder / "items.parquet", self.schema)
        except DataError as error:
            items, problems = {}, [str(error)]
        self.errors.add("items", problems)
        vectors = check_vectors(self.folder, self.schema)
        for name, messages in vectors.errors.items():
            for message, count in messages:
                self.errors.add(("vectors", name, message), [message], count)
        self.warnings.add("vectors", vectors.warnings)
        self.notes += vectors.notes
        if not problems:
            self.signs.add_items(items)
            if self.schema.cut_long_length is not None:
                self.cut_mark = CutMark(self.schema, items)
                self.notes.append(self.cut_mark.note)

    def _split(self, split: str) -> None:
        folder = self.folder / split
        pages, with_clicks, whole = 0, True, True
        try:
            parts = parts_of(folder)
        except DataError as error:
            self.errors.add((split, "parts"), [str(error)])
            return
        for path in parts:
            try:
                with open_part(path) as file:
                    with_clicks &= page_row.CLICKS in file.schema_arrow.names
                    pages += file.metadata.num_rows
                    self._part(split, path, file)
            except DataError as error:
                self.errors.add((split, "unreadable"), [str(error)])
                whole = False
        if whole:
            self.pages[split] = pages
        counts = self.tally.splits[split]
        if pages and not with_clicks and split == "test":
            text = f"{folder}: column clicks: missing; pages can be scored, but not tested"
            self.warnings.add((split, "clicks"), [text])
        elif counts.items and counts.clicks in (0, counts.items):
            text = f"{folder}: column clicks: all are {int(counts.clicks > 0)}, so the AUC is undefined"
            self.warnings.add((split, "clicks"), [text])
        if split == "train":
            self.notes += [f"{folder}: {lack}" for lack in counts.missing_inputs.values()]

    def _part(self, split: str, path: Place, file: pq.ParquetFile) -> None:
        columns = self._columns(split)
        self._file(split, path, file, columns)
        stored = file.schema_arrow
        readable = [c for c in columns if c.name in stored.names and not type_problems([c], stored, path)]
        countable = {c.name for c in columns if not c.optional} <= {c.name for c in readable}
        first = 0
        for group in range(file.num_row_groups):
            rows = decode(file, group, [c.name for c in readable])
            self.far_ids.add(split, path, first, readable, rows)
            problems = list(row_problems(self.schema, readable, rows))
            for problem in problems:
                kind = (split, problem.column, problem.remedy)
                self.errors.add(kind, problem.messages(path, first), problem.count)
            pages = file.metadata.row_group(group).num_rows
            if pages and countable and not problems:
                self.tally.add(split, rows)
            if pages:
                bad = {problem.column for problem in problems}
                good = {n: v for n, v in rows.items() if n not in bad}
                self._remember(split, path, first, good)
                if self.cut_mark:
                    self.errors.add((split, "cut"), *self.cut_mark.problems(path, first, good))
            first += pages

    def _columns(self, split: str) -> list[Column]:
        """The columns that a split may have: true probabilities only in test, where clicks may be missing."""
        columns = page_columns(self.schema)
        if split == "test":
            return [replace(c, optional=c.optional or c.name == page_row.CLICKS) for c in columns]
        return [c for c in columns if c.name not in page_row.HIDDEN]

    def _file(self, split: str, path: Place, file: pq.ParquetFile, columns: list[Column]) -> None:
        """Checks the footer of a file: columns and types; sizes of row groups are looked at together."""
        stored = file.schema_arrow
        for text in type_problems(columns, stored, path):
            self.errors.add((split, "columns"), [text])
        for name in sorted(set(stored.names) - {c.name for c in columns}):
            if name in page_row.HIDDEN:
                text = "what only a synthetic world knows, and a model must not see; write it only to the test split"
                self.errors.add((split, name), [f"{path}: column {name}: {text}"])
            else:
                text = "not in schema.yaml, so it is not read; leave it out, or add it to schema.yaml"
                self.warnings.add((split, name), [f"{path}: column {name}: {text}"])
        self.row_groups.add(split, path, file.metadata)

    def _remember(self, split: str, path: Place, first: int, rows: PageRows) -> None:
        """Stores what is checked across the folder: page ids, times, and which rows of hash tables are used."""
        exposed, time, ids = rows.get(page_row.ITEMS), rows.get(page_row.TIME), rows.get(page_row.PAGE_ID)
        if isinstance(exposed, Ragged):
            empty = np.flatnonzero(exposed.lengths == 0)
            what = "column items: empty, so the reader skips this page"
            lines = [f"{path}: row {first + row}, {what}" for row in empty[:SHOWN]]
            self.warnings.add((split, "items"), lines, len(empty))
        if isinstance(ids, np.ndarray):
            self.page_ids.add(split, path, first, ids)
        if isinstance(time, np.ndarray):
            ends = [(int(time[at]), f"{path}: row {first + at}") for at in (time.argmin(), time.argmax())]
            earliest, latest = self.spans.get(split, ends)
            self.spans[split] = [min(earliest, ends[0]), max(latest, ends[1])]
        self.signs.add(split, path, first, rows)

    def _strangers(self) -> None:
        """Warns of what is beside the files of a dataset and not read: `valid/`, or parts without a split."""
        inside: list[Place] = [*self.folder.iterdir()]
        for path in sorted(inside, key=str):
            if path.name in FILES or path.name in BESIDE_DATA or path.name.startswith(("_", ".")):
                continue
            if path.is_dir() or path.suffix == ".parquet":
                splits = ", ".join(f"{split}/" for split in SPLITS)
                self.warnings.add("strangers", [f"{path}: not read; page views are read from {splits}"])

    def _empty_splits(self) -> None:
        """Reports splits without page views. A folder that is only to be scored has nothing but a test split."""
        empty = [split for split in SPLITS if self.pages.get(split) == 0]
        if len(empty) == len(SPLITS):
            splits = ", ".join(f"{split}/" for split in SPLITS)
            text = f"{self.folder}: no page views; write them as .parquet files in {splits}"
            self.errors.add("pages", [text])
        elif empty == ["train", "validation"]:
            text = f"{self.folder}: only test/ has page views, so they can be scored, but no model can be trained"
            self.notes.append(text)
        else:
            for split in empty:
                place = self.folder / split
                if split == "train":
                    text = f"{place}: no page views, so no model can be trained; write them as .parquet files there"
                    self.errors.add((split, "empty"), [text])
                else:
                    self.warnings.add((split, "empty"), [f"{place}: no page views, so this split cannot be used"])

    def _time_order(self) -> None:
        for before, after in pairwise([split for split in SPLITS if split in self.spans]):
            (last, last_at), (first, first_at) = self.spans[before][1], self.spans[after][0]
            if first <= last:
                text = f"column time: {first} ({utc(first)}) is not after the last page of {before}"
                where = f"{last} ({utc(last)}) in {last_at}"
                line = f"{first_at}, {text}, {where}; split by time, {before} before {after}"
                self.errors.add("time order", [line])

    def _vocabularies(self) -> dict[str, str]:
        """Checks the vocabularies; returns their digests."""
        digests = {}
        files: list[Place] = [*(self.folder / "vocabulary").glob("*.parquet")]
        for path in sorted(files, key=str):
            table = self.schema.tables.get(path.stem)
            if table is None:
                self.warnings.add("vocabulary", [f"{path}: not read, because schema.yaml has no table '{path.stem}'"])
                continue
            try:
                vocabulary = Vocabulary.load(path)
            except DataError as error:
                self.errors.add("vocabulary", [str(error)])
                continue
            digests[path.stem] = vocabulary.digest()
            if table.mapping == "hash":  # with the original ids, collisions are counted, not estimated
                if pa.types.is_integer(vocabulary.ids.type):
                    ids = vocabulary.ids.to_numpy()
                    self.notes.append(f"table {path.stem} (hash): {collisions(ids, table.rows)}")
                    self.hashed.discard(path.stem)
                continue
            if max(len(vocabulary), 2) != table.rows:  # a converter gives a table without any id 2 rows
                text = f"{len(vocabulary) - 1} ids make {len(vocabulary)} rows with row 0"
                other = f"tables.{path.stem}.rows in schema.yaml is {table.rows}"
                self.errors.add("vocabulary", [f"{path}: {text}, but {other}"])
        return digests

    def _cut_of(self) -> dict[str, str]:
        """Whose cut copy the folder is, if no file of it has changed since it was cut."""
        try:
            stored = Dataset.open(self.folder)
            for split in SPLITS:
                stored.fingerprint(split)  # refuses changes
        except DataError:
            return {}
        return stored.cut_of

    def _stats(self, write: bool, digests: dict[str, str]) -> None:
        path, bad = self.folder / "stats.json", bool(self.errors.lines())
        remedy = f"`ccn data check {self.folder} --write_stats true` writes it"
        if write and bad:
            self.notes.append(f"{path}: not written; fix the errors first")
        elif write:
            try:
                write_stats(self.folder, self.tally.splits, self.tally.numbers(), digests, self._cut_of())
            except OSError as error:
                self.unwritten = f"{path}: cannot be written: {error.strerror}; make {self.folder} writable, or copy it"
            else:
                self.notes.append(f"{path}: written")
        elif not path.is_file():
            self.errors.add("stats", [f"{path}: missing, and required to use the folder; {remedy}"])
        elif not bad:
            try:
                found = stale(Dataset.open(self.folder), self.tally, digests)
                self.errors.add("stats", [f"{path}: {text}; {remedy}" for text in found])
            except DataError as error:
                self.errors.add("stats", [str(error)])
