"""`ccn data check`: finds all errors of a dataset folder, which another job may have written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lightning_ccn.data import page_row
from lightning_ccn.data.check.report import CheckReport, Messages, utc
from lightning_ccn.data.columns import Column, page_columns
from lightning_ccn.data.dataset import SPLITS, Dataset
from lightning_ccn.data.parquet import PageRows, decode, open_part
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.rules import SHOWN, row_problems, scan_items, type_problems
from lightning_ccn.data.schema import Feature, Schema, read_schema
from lightning_ccn.data.vocabulary import Vocabulary, hash_rows
from lightning_ccn.data.writer import Tally, write_stats
from lightning_ccn.errors import DataError

MOST_PAGES = 4096  # per row group, without a warning: the reader holds one decoded row group per lane
TRUTHS = (page_row.TRUE_PROBABILITY, page_row.ATTAINABLE_PROBABILITY)


def check(folder: str | Path, write_stats: bool = False) -> CheckReport:
    """Checks every value of a dataset folder, one row group at a time.

    Memory: 16 bytes per page view (to find repeated page ids), one byte per row of each hash table, items.parquet and
    the largest vocabulary.

    Args:
        folder: Dataset folder to check; stats.json may be missing.
        write_stats: Write stats.json if there are no errors. A folder that another job wrote needs this once.

    Returns:
        The report. A bad folder does not raise an error.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return CheckReport(folder, errors=[f"{folder}: no such folder"])
    try:
        schema = read_schema(folder)
    except DataError as error:
        return CheckReport(folder, errors=[str(error)])
    return _Check(folder, schema).run(write_stats)


class _Check:
    """The state of one `check`."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        self.folder, self.schema = folder, schema
        self.errors, self.warnings = Messages(), Messages()
        self.notes: list[str] = []
        self.tally = Tally(schema)
        hashed = {name: table.rows for name, table in schema.tables.items() if table.mapping == "hash"}
        self.used = {name: np.zeros(rows, dtype=bool) for name, rows in hashed.items()}
        self.page_ids: list[np.ndarray] = []  # of each row group
        self.places: list[tuple[Path, int]] = []  # file and first row of each row group
        self.spans: dict[str, list[tuple[int, str]]] = {}  # split -> (time, place) of its first and last page

    def run(self, write: bool) -> CheckReport:
        self._items()
        for split in SPLITS:
            self._split(split)
        if not self.places and not self.errors.lines():
            self.errors.add("pages", [f"{self.folder}: no page views in train/, validation/ or test/"])
        self._page_ids()
        self._time_order()
        digests = self._vocabularies()
        for table, used in self.used.items():
            self.notes.append(f"table {table} (hash): {_estimated_collisions(used)}")
        self._stats(write, digests)
        found = self.warnings.lines(), self.errors.lines()
        return CheckReport(self.folder, self.tally.splits, self.notes, *found)

    def _items(self) -> None:
        try:
            items, problems = scan_items(self.folder / "items.parquet", self.schema)
        except DataError as error:
            items, problems = {}, [str(error)]
        self.errors.add("items", problems)
        self._use(self.schema.attributes, items)

    def _split(self, split: str) -> None:
        folder = self.folder / split
        pages, with_clicks = 0, True
        for path in sorted(folder.glob("*.parquet")):
            try:
                with open_part(path) as file:
                    with_clicks &= page_row.CLICKS in file.schema_arrow.names
                    pages += file.metadata.num_rows
                    self._part(split, path, file)
            except DataError as error:
                self.errors.add((split, "unreadable"), [str(error)])
        counts = self.tally.splits[split]
        if not pages:
            text = f"{folder}: no page views, so this split cannot be used; subfolders are not read"
            self.warnings.add((split, "empty"), [text])
        elif not with_clicks and split == "test":
            text = f"{folder}: column clicks: missing; pages can be scored, but not tested"
            self.warnings.add((split, "clicks"), [text])
        elif counts.items and counts.clicks in (0, counts.items):
            text = f"{folder}: column clicks: all are {int(counts.clicks > 0)}, so the AUC is undefined"
            self.warnings.add((split, "clicks"), [text])
        if split == "train":
            self.notes += [f"{folder}: {lack}" for lack in counts.missing_inputs.values()]

    def _part(self, split: str, path: Path, file: pq.ParquetFile) -> None:
        columns = self._columns(split)
        self._file(split, path, file, columns)
        stored = file.schema_arrow
        present = [c for c in columns if c.name in stored.names]
        readable = [c for c in present if c.type_problem(stored.field(c.name).type) is None]
        countable = {c.name for c in columns if not c.optional} <= {c.name for c in readable}
        first = 0
        for group in range(file.num_row_groups):
            rows = decode(file, group, [c.name for c in readable])
            problems = list(row_problems(self.schema, readable, rows))
            for problem in problems:
                kind = (split, problem.column, problem.remedy)
                self.errors.add(kind, problem.messages(path, first), problem.count)
            pages = file.metadata.row_group(group).num_rows
            if pages and countable and not problems:
                self.tally.add(split, rows)
            if pages:
                bad = {problem.column for problem in problems}
                self._remember(split, path, first, {n: v for n, v in rows.items() if n not in bad})
            first += pages

    def _columns(self, split: str) -> list[Column]:
        """The columns that a split may have: true probabilities only in test, where clicks may be missing."""
        columns = page_columns(self.schema)
        if split == "test":
            return [replace(c, optional=c.optional or c.name == page_row.CLICKS) for c in columns]
        return [c for c in columns if c.name not in TRUTHS]

    def _file(self, split: str, path: Path, file: pq.ParquetFile, columns: list[Column]) -> None:
        """Checks the footer of a file: columns, types, sizes of row groups."""
        stored = file.schema_arrow
        for text in type_problems(columns, stored, path):
            self.errors.add((split, "columns"), [text])
        for name in sorted(set(stored.names) - {c.name for c in columns}):
            if name in TRUTHS:
                text = "a true probability, which a model must not see; write it only to the test split"
                self.errors.add((split, name), [f"{path}: column {name}: {text}"])
            else:
                text = "not in schema.yaml, so it is not read; leave it out, or add it to schema.yaml"
                self.warnings.add((split, name), [f"{path}: column {name}: {text}"])
        for group in range(file.num_row_groups):
            pages = file.metadata.row_group(group).num_rows
            if pages > MOST_PAGES:
                text = f"{path}: row group {group} has {pages} pages; the reader keeps up to 64 row groups in "
                text += f"memory: write at most {MOST_PAGES} pages per row group (Spark: parquet.block.size)"
                self.warnings.add((split, "row group"), [text])

    def _remember(self, split: str, path: Path, first: int, rows: PageRows) -> None:
        """Stores what is checked across the folder: page ids, times, and which rows of hash tables are used."""
        exposed, time, ids = rows.get(page_row.ITEMS), rows.get(page_row.TIME), rows.get(page_row.PAGE_ID)
        if isinstance(exposed, Ragged):
            empty = np.flatnonzero(exposed.lengths == 0)
            what = "column items: empty, so the reader skips this page"
            lines = [f"{path}: row {first + row}, {what}" for row in empty[:SHOWN]]
            self.warnings.add((split, "items"), lines, len(empty))
        if isinstance(ids, np.ndarray):
            self.page_ids.append(ids.astype(np.int64))
            self.places.append((path, first))
        if isinstance(time, np.ndarray):
            ends = [(int(time[at]), f"{path}: row {first + at}") for at in (time.argmin(), time.argmax())]
            earliest, latest = self.spans.get(split, ends)
            self.spans[split] = [min(earliest, ends[0]), max(latest, ends[1])]
        of_items = (page_row.TRIGGER, page_row.ITEMS, page_row.SHORT_ITEMS, page_row.LONG_ITEMS)
        self._use([*self.schema.user, *(Feature(name, page_row.ITEM) for name in of_items)], rows)

    def _use(self, features: Sequence[Feature], rows: PageRows) -> None:
        for feature in features:
            if feature.table in self.used and feature.name in rows:
                stored, used = rows[feature.name], self.used[feature.table]
                values = stored.values if isinstance(stored, Ragged) else stored
                used[values] = True

    def _page_ids(self) -> None:
        starts = np.cumsum([0, *map(len, self.page_ids)])
        every = np.concatenate([np.zeros(0, np.int64), *self.page_ids])
        self.page_ids.clear()
        in_order = np.sort(every)
        repeated = np.unique(in_order[1:][in_order[1:] == in_order[:-1]])
        lines = []
        for page_id in repeated[:SHOWN]:
            first, second, *_ = np.flatnonzero(every == page_id)
            (path, row), (path_2, row_2) = (self._place(int(at), starts) for at in (second, first))
            where = f"row {row_2} of {path_2} has it too"
            lines.append(f"{path}: row {row}, column page_id: {page_id}; {where}: give each page view its own id")
        self.errors.add("page ids", lines, len(repeated))

    def _place(self, at: int, starts: np.ndarray) -> tuple[Path, int]:
        group = int(np.searchsorted(starts, at, side="right")) - 1
        path, first = self.places[group]
        return path, first + at - int(starts[group])

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
        for path in sorted((self.folder / "vocabulary").glob("*.parquet")):
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
                    self.notes.append(f"table {path.stem} (hash): {_collisions(ids, table.rows)}")
                    del self.used[path.stem]
                continue
            if len(vocabulary) != table.rows:
                text = f"{len(vocabulary) - 1} ids make {len(vocabulary)} rows with row 0"
                other = f"tables.{path.stem}.rows in schema.yaml is {table.rows}"
                self.errors.add("vocabulary", [f"{path}: {text}, but {other}"])
        return digests

    def _stats(self, write: bool, digests: dict[str, str]) -> None:
        path, bad = self.folder / "stats.json", bool(self.errors.lines())
        remedy = f"`ccn data check {self.folder} --write_stats true` writes it"
        if write and bad:
            self.notes.append(f"{path}: not written; fix the errors first")
        elif write:
            write_stats(self.folder, self.tally.splits, self.tally.numbers(), digests)
            self.notes.append(f"{path}: written")
        elif not path.is_file():
            self.errors.add("stats", [f"{path}: missing, and required to use the folder; {remedy}"])
        elif not bad:
            try:
                stale = _stale(Dataset.open(self.folder), self.tally, digests)
                self.errors.add("stats", [f"{path}: {text}; {remedy}" for text in stale])
            except DataError as error:
                self.errors.add("stats", [str(error)])


def _stale(stored: Dataset, tally: Tally, digests: dict[str, str]) -> Iterator[str]:
    for split, counts in tally.splits.items():
        was = asdict(stored.splits[split])
        differ = {name: value for name, value in asdict(counts).items() if was[name] != value}
        if differ:
            counted = ", ".join(f"{name} {value}" for name, value in differ.items())
            told = ", ".join("nothing" if was[name] is None else str(was[name]) for name in differ)
            yield f"splits.{split}: the split has {counted}, but the file says {told}"
    for name, (mean, deviation) in tally.numbers().items():
        if not np.allclose(stored.numbers[name], (mean, deviation), rtol=1e-4):
            told = " and ".join(f"{value:g}" for value in stored.numbers[name])
            yield (f"numbers.{name}: the mean is {mean:g} and the deviation {deviation:g}, but the file says {told}")
    if stored.digests != digests:
        yield "digests differ from those of the files in vocabulary/"


def _collisions(ids: np.ndarray, rows: int) -> str:
    """How many ids share their row with another id."""
    _, count = np.unique(hash_rows(ids, rows), return_counts=True)
    shared = len(ids) - int((count == 1).sum())
    return f"{shared:,} of {len(ids):,} ids ({shared / max(len(ids), 1):.1%}) share a row with another"


def _estimated_collisions(used: np.ndarray) -> str:
    """Estimates the same from the rows in use: n ids in r rows leave a share of (1 - 1/r)^n empty."""
    rows, full = len(used) - 1, np.count_nonzero(used[1:])
    if full == rows:
        return f"all {rows:,} rows are in use, so collisions cannot be estimated; give the table more rows"
    ids = math.log1p(-full / rows) / math.log1p(-1 / rows)
    share = -math.expm1((ids - 1) * math.log1p(-1 / rows)) if full else 0.0
    return f"{full:,} of {rows:,} rows in use, by about {ids:,.0f} ids; about {share:.1%} share a row with another"
