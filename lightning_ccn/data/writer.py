"""Writes dataset folders as a stream: memory does not grow with the number of pages."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lightning_ccn.data import page_row
from lightning_ccn.data.columns import LARGEST
from lightning_ccn.data.cut import CutCounts, LongCut
from lightning_ccn.data.dataset import SPLITS, SplitStats
from lightning_ccn.data.fingerprint import file_digests
from lightning_ccn.data.item_vectors import new_vector_file
from lightning_ccn.data.new_folder import NewFolder
from lightning_ccn.data.parquet import parts_of
from lightning_ccn.data.places import Place
from lightning_ccn.data.ragged import Ragged, row_sums
from lightning_ccn.data.schema import Schema, read_schema
from lightning_ccn.data.vocabulary import Vocabulary

PAGES_PER_ROW_GROUP = 512  # the reader holds one decoded row group per lane, so they are small
ROW_GROUPS_PER_PART = 64


class Tally:
    """Counts page rows for stats.json.

    Attributes:
        splits: Counts of each split so far.
    """

    def __init__(self, schema: Schema) -> None:
        self.splits = {split: SplitStats() for split in SPLITS}
        self._moments = {name: Moments() for name in (*schema.numbers, *schema.page_numbers)}

    def add(self, split: str, rows: Mapping[str, Any]) -> None:
        """Counts page rows of a split, at least one; clicks may be missing."""
        stats = self.splits[split]
        stats.pages += len(rows[page_row.PAGE_ID])
        stats.items += len(rows[page_row.ITEMS].values)
        found = {
            "pages_with_trigger": rows[page_row.TRIGGER] != 0,  # [pages] each
            "pages_with_short": rows[page_row.SHORT_ITEMS].lengths > 0,
            "pages_with_long": rows[page_row.LONG_ITEMS].lengths > 0,
        }
        if page_row.CLICKS in rows:
            clicks = rows[page_row.CLICKS]
            per_page = row_sums(clicks, clicks.values)  # [pages]
            stats.clicks += int(per_page.sum())
            found["pages_of_two_labels"] = (per_page > 0) & (per_page < clicks.lengths)
            found["pages_of_two_clicks"] = per_page > 1
        for name, pages in found.items():
            setattr(stats, name, getattr(stats, name) + int(pages.sum()))
        first, last = int(rows[page_row.TIME].min()), int(rows[page_row.TIME].max())
        stats.first_time = first if stats.first_time is None else min(stats.first_time, first)
        stats.last_time = last if stats.last_time is None else max(stats.last_time, last)
        if split == "train":
            for name, moments in self._moments.items():
                column = rows[name]
                moments.add(column.values if isinstance(column, Ragged) else column)

    def numbers(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of each number, over the training items or pages where it is known."""
        return {name: (moments.mean, moments.deviation) for name, moments in self._moments.items()}


class Moments:
    """Mean and standard deviation of a stream of numbers (Chan, Golub, LeVeque: pairwise updates).

    A sum of squares would lose the deviation of numbers that are far from 0, such as times.
    """

    def __init__(self) -> None:
        self.count, self.mean = 0, 0.0
        self._squares = 0.0  # of the differences from the mean

    def add(self, values: np.ndarray) -> None:
        """Adds numbers; those that are unknown (NaN) or beyond `LARGEST` do not count."""
        known = values.astype(np.float64)
        known = known[np.abs(known) <= LARGEST]
        if known.size:
            mean = float(known.mean())
            self.merge(known.size, mean, float(np.square(known - mean).sum()))

    def merge(self, count: int, mean: float, squares: float) -> None:
        """Adds `count` numbers, at least one, by their mean and the sum of their squared differences from it."""
        total, apart = self.count + count, mean - self.mean
        self._squares += squares + apart**2 * self.count * count / total
        self.mean += apart * count / total
        self.count = total

    @property
    def varies(self) -> bool:
        """Whether the numbers differ by more than rounding."""
        return math.sqrt(self._squares / max(self.count, 1)) > 1e-12 * abs(self.mean)

    @property
    def deviation(self) -> float:
        """The standard deviation; 1 for numbers that are all equal."""
        return math.sqrt(self._squares / self.count) if self.varies else 1.0


class DatasetWriter:
    """Writes page rows to Parquet files of even size, and counts them for stats.json.

    It writes to a hidden folder beside it, which `close` renames, see `NewFolder`. Leaving the `with` block without
    `close`, as by an exception, removes it.

    Args:
        folder: Dataset folder to write; it must be empty or not exist.
        schema: Schema of the rows. If tables may still grow, pass the final schema to `close`.
        items: Item attributes as for `close`, if they are known before the pages. With them, a folder whose long
            sequences are to be cut (`Schema.cut_long_length`) is cut as it is written; without them, in a second pass
            over its parts, one at a time, in `close`.

    Raises:
        DataError: The folder is not empty, or another process writes it.
    """

    def __init__(
        self, folder: str | Path, schema: Schema, items: Mapping[str, np.ndarray | Ragged] | None = None
    ) -> None:
        self.folder = Path(folder)
        self.schema = schema
        own = (self.folder / "schema.yaml").is_file() and not (self.folder / "stats.json").is_file()
        remedy = f", or make it usable as it is: `ccn data check {self.folder} --write_stats true`" if own else ""
        self._new = NewFolder(self.folder, f"choose another folder{remedy}")
        self.part = self._new.part
        for split in SPLITS:
            (self.part / split).mkdir()
        self._tally = Tally(schema)
        self.stats = self._tally.splits
        self._pending: dict[str, list[pa.Table]] = {split: [] for split in SPLITS}
        self._open: dict[str, pq.ParquetWriter] = {}
        self._groups = dict.fromkeys(SPLITS, 0)
        self._cut = None if items is None or schema.cut_long_length is None else LongCut(schema, items)

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            for writer in self._open.values():
                writer.close()  # writes the footer, which fails if the disk is full
        finally:
            self._new.discard()

    def write(self, split: str, rows: Mapping[str, np.ndarray | Ragged]) -> None:
        """Adds page rows to a split.

        Args:
            split: `train`, `validation` or `test`.
            rows: An array [pages] or a `Ragged` [pages] per column.
        """
        rows = self._cut(rows) if self._cut else rows
        table = pa.table({name: _arrow(column) for name, column in rows.items()})
        if table.num_rows == 0:
            return
        self._tally.add(split, rows)
        self._pending[split].append(table)
        if sum(t.num_rows for t in self._pending[split]) >= PAGES_PER_ROW_GROUP:
            self._flush(split)

    def close(
        self,
        items: Mapping[str, np.ndarray | Ragged],
        vocabularies: Mapping[str, Vocabulary] | None = None,
        schema: Schema | None = None,
        extra: Mapping[str, str] | None = None,
        vectors: Mapping[str, np.ndarray] | None = None,
    ) -> Path:
        """Writes the remaining rows and all other files, and renames the folder.

        Args:
            items: Item attributes by name, int [rows of the item table] each, or a `Ragged` of these; and numbers,
                floats; row 0 is the unknown item.
            vocabularies: Vocabularies by table; the rows of a table without one have no original ids.
            schema: The final schema, if tables grew while writing.
            extra: Contents of further text files by name, such as a world's knobs or a converter's report.
            vectors: Vectors of items by name, floats [rows of the item table, width] each; those that `new_vector_file`
                has written into `part` are there already.

        Returns:
            The dataset folder.
        """
        self.schema = schema or self.schema
        vocabularies = vocabularies or {}
        for split in SPLITS:
            self._flush(split, rest=True)
        for writer in self._open.values():
            writer.close()
        self._open.clear()
        if self.schema.cut_long_length is not None and self._cut is None:
            self._cut_parts(LongCut(self.schema, items))
        table = {page_row.ITEM: pa.array(np.arange(self.schema.tables[page_row.ITEM].rows))}
        table |= {f.name: _arrow(_long(items[f.name])) for f in self.schema.attributes}
        table |= {name: pa.array(np.asarray(items[name], np.float32)) for name in self.schema.ratio_to_trigger}
        pq.write_table(pa.table(table), self.part / "items.parquet", compression="zstd")
        for name, vocabulary in vocabularies.items():
            vocabulary.save(self.part / "vocabulary" / f"{name}.parquet")
        for name, array in (vectors or {}).items():
            new_vector_file(self.part, name, *array.shape)[:] = array
        for name, text in (extra or {}).items():
            (self.part / name).write_text(text)
        (self.part / "schema.yaml").write_text(self.schema.to_yaml())
        digests = {name: vocabulary.digest() for name, vocabulary in vocabularies.items()}
        write_stats(self.part, self.stats, self._tally.numbers(), digests)
        self._new.finish()
        return self.folder

    def _flush(self, split: str, rest: bool = False) -> None:
        if not self._pending[split]:
            return
        table = pa.concat_tables(self._pending[split]).combine_chunks()
        complete = table.num_rows if rest else table.num_rows // PAGES_PER_ROW_GROUP * PAGES_PER_ROW_GROUP
        for start in range(0, complete, PAGES_PER_ROW_GROUP):
            if self._groups[split] % ROW_GROUPS_PER_PART == 0:
                if split in self._open:
                    self._open[split].close()
                path = self.part / split / f"part-{self._groups[split] // ROW_GROUPS_PER_PART:05d}.parquet"
                self._open[split] = pq.ParquetWriter(path, table.schema, compression="zstd")
            # without `min`, the last slice would go past `complete`
            self._open[split].write_table(table.slice(start, min(PAGES_PER_ROW_GROUP, complete - start)))
            self._groups[split] += 1
        self._pending[split] = [table.slice(complete)] if complete < table.num_rows else []

    def _cut_parts(self, cut: LongCut) -> None:
        for split in SPLITS:
            counts = CutCounts()
            for path in parts_of(self.part / split):
                whole = path.rename(path.with_name(f"_{path.name}"))
                counts += cut.part(whole, path)
                whole.unlink()
            self.stats[split].pages_with_long = counts.pages_with_long


def write_stats(
    folder: Place,
    splits: Mapping[str, SplitStats],
    numbers: Mapping[str, tuple[float, float]],
    digests: Mapping[str, str],
    cut_of: Mapping[str, str] | None = None,
) -> None:
    """Writes stats.json of a dataset folder, after all its other files; see `Dataset` for the arguments."""
    plain: dict[str, Any] = {
        "splits": {split: asdict(stats) for split, stats in splits.items()},
        "numbers": {name: list(pair) for name, pair in numbers.items()},
        "digests": dict(digests),
        "files": file_digests(folder, SPLITS),
    }
    if cut_of:
        plain["cut_of"] = dict(cut_of)
    if (cut_to := read_schema(folder).cut_long_length) is not None:
        plain["cut_long_length"] = cut_to
    (folder / "stats.json").write_text(json.dumps(plain, indent=2) + "\n")


def _long(column: np.ndarray | Ragged) -> np.ndarray | Ragged:
    if isinstance(column, Ragged):
        return Ragged(column.values.astype(np.int64), column.offsets)
    return np.asarray(column, np.int64)


def _arrow(column: np.ndarray | Ragged) -> pa.Array:
    if isinstance(column, Ragged):
        return pa.LargeListArray.from_arrays(pa.array(column.offsets, pa.int64()), pa.array(column.values))
    return pa.array(column)
