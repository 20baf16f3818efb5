"""A dataset folder's copy without one value of a column in training: to test on what a model has never seen.

The copy's training and validation pages are those of the other values, its test pages those of the value alone. In
them, the column is 0, the unknown id, as it would be for a place of the shop that opened after training.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lightning_ccn.data import page_row
from lightning_ccn.data.columns import page_columns
from lightning_ccn.data.dataset import SPLITS, Dataset
from lightning_ccn.data.new_folder import NewFolder
from lightning_ccn.data.parquet import decode, list_column, open_part, parts_of, value_column
from lightning_ccn.data.places import on_disk
from lightning_ccn.data.ragged import row_sums
from lightning_ccn.data.rules import check_columns, check_rows
from lightning_ccn.data.schema import Schema
from lightning_ccn.data.writer import PAGES_PER_ROW_GROUP, Tally, write_stats
from lightning_ccn.errors import DataError

FILE = "left_out.json"  # of a copy: the column and the value, and the pages that it was made of


@dataclass
class ValueCounts:
    """What a dataset has of one value of a column.

    Attributes:
        pages: Number of pages by split.
        items: Number of exposed items in the test split.
        clicks: Number of clicked items in the test split.
    """

    pages: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    items: int = 0
    clicks: int = 0


def counts_by_value(dataset: Dataset, column: str, most: int) -> dict[int, ValueCounts]:
    """Counts the pages of each value of a profile feature.

    Args:
        dataset: The data.
        column: Name of a profile feature with one value per page.
        most: Stop as soon as there are more values than this.

    Returns:
        Counts by value, in order; at most `most` + 1 values, and then not all pages are counted.

    Raises:
        DataError: A file cannot be read, or a value breaks a rule of `rules`.
    """
    found: dict[int, ValueCounts] = {}
    for split in SPLITS:
        columns = [column, page_row.ITEMS, page_row.CLICKS] if split == "test" else [column]
        check_columns(dataset, split, columns)
        for path in dataset.parts(split):
            first = 0
            with open_part(path) as file:
                for group in range(file.num_row_groups):
                    rows = decode(file, group, columns)
                    check_rows(dataset.schema, rows, path, first)
                    values = value_column(rows, column)
                    first += len(values)
                    clicks = list_column(rows, page_row.CLICKS) if split == "test" else None
                    for value in np.unique(values):
                        pages = values == value
                        counts = found.setdefault(int(value), ValueCounts())
                        counts.pages[split] += int(pages.sum())
                        if clicks is not None:
                            counts.items += int(clicks.lengths[pages].sum())
                            counts.clicks += int(row_sums(clicks, clicks.values)[pages].sum())
                    if len(found) > most:
                        return found
    return dict(sorted(found.items()))


def leave_out(folder: str | Path, out: Path, *, column: str, value: int) -> None:
    """Writes a copy of a dataset folder that leaves one value of a column out of training, see the module.

    Pages keep their order, and row groups get the usual size. Counts, and the moments of numbers, are those of the
    pages that are left. Items, vectors and vocabularies are hard links to the folder's where the file system allows it.
    Memory: one row group of the folder and one of the copy.

    Args:
        folder: Dataset folder to read, with its stats.json.
        out: Dataset folder to write; it must be empty or not exist.
        column: Name of a profile feature with one value per page.
        value: The value to leave out, a row of the feature's table.

    Raises:
        DataError: A folder cannot be read or written, or a value breaks a rule of `rules`.
    """
    folder = on_disk(folder, "the folder whose pages are left out")
    dataset = Dataset.open(folder)
    mark = left_out_mark(dataset, column, value)  # refuses files that stats.json does not describe
    new, tally = NewFolder(out, "choose another folder"), Tally(dataset.schema)
    try:
        for split in SPLITS:
            (new.part / split).mkdir()
            for path in parts_of(folder / split):
                to = new.part / path.relative_to(folder)
                _copy_part(dataset.schema, path, to, column, value, split == "test")
                if to.exists():
                    _count(tally, dataset.schema, split, to)
        for name in ("schema.yaml", "items.parquet"):
            _link(folder / name, new.part / name)
        for name in ("vocabulary", "vectors"):
            if (folder / name).is_dir():
                shutil.copytree(folder / name, new.part / name, copy_function=_link)
        (new.part / FILE).write_text(json.dumps(mark, indent=1) + "\n")
        write_stats(new.part, tally.splits, tally.numbers(), dataset.digests)
        new.finish()
    finally:
        new.discard()


def is_left_out(out: Path, dataset: Dataset, column: str, value: int) -> bool:
    """Whether a folder is a finished copy that `leave_out` made of this dataset as it is now.

    Raises:
        DataError: It is one of another dataset, or of other pages.
    """
    if not out.exists():
        return False
    try:
        found = json.loads((out / FILE).read_text())
    except (OSError, ValueError):
        found = None
    if found != left_out_mark(dataset, column, value):
        raise DataError(
            f"{out}: was not made of the pages that {dataset.folder} has now, without {column} {value}: give the "
            "comparison another --output, since its runs are of those pages too"
        )
    return True


def left_out_mark(dataset: Dataset, column: str, value: int) -> dict[str, Any]:
    """What a copy was made of: the column, the value, and `of`, digests of the pages and items.

    Raises:
        DataError: A file has changed since stats.json was written, or cannot be read.
    """
    of = {split: dataset.fingerprint(split) for split in SPLITS}
    of |= {name: digest for name, digest in (dataset.files or {}).items() if name == "items.parquet"}
    return {"column": column, "value": value, "of": of}


def _copy_part(schema: Schema, source: Path, to: Path, column: str, value: int, tests: bool) -> None:
    """Writes the pages of a part that the copy has; no file if it has none of them."""
    writer = None
    try:
        for table in _row_groups(schema, source, column, value, tests):
            if writer is None:
                to.parent.mkdir(parents=True, exist_ok=True)
                writer = pq.ParquetWriter(to, table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _row_groups(schema: Schema, source: Path, column: str, value: int, tests: bool) -> Iterator[pa.Table]:
    """The pages of a part that the copy has, `PAGES_PER_ROW_GROUP` at a time."""
    left: list[pa.Table] = []
    first = 0
    with open_part(source) as file:
        for group in range(file.num_row_groups):
            check_rows(schema, decode(file, group, [column]), source, first)
            table = file.read_row_group(group, use_threads=False)
            first += table.num_rows
            its_own = pc.equal(table[column], value)
            table = table.filter(its_own if tests else pc.invert(its_own))
            if tests:
                at, stored = table.schema.get_field_index(column), table.schema.field(column)
                table = table.set_column(at, stored, pa.array(np.zeros(table.num_rows, np.int64)).cast(stored.type))
            left.append(table)
            if sum(part.num_rows for part in left) >= PAGES_PER_ROW_GROUP:
                table = pa.concat_tables(left).combine_chunks()
                whole = table.num_rows // PAGES_PER_ROW_GROUP * PAGES_PER_ROW_GROUP
                for start in range(0, whole, PAGES_PER_ROW_GROUP):
                    yield table.slice(start, PAGES_PER_ROW_GROUP)
                left = [table.slice(whole)]
    if rest := [part for part in left if part.num_rows]:
        yield pa.concat_tables(rest).combine_chunks()


def _count(tally: Tally, schema: Schema, split: str, path: Path) -> None:
    with open_part(path) as file:
        names = [column.name for column in page_columns(schema) if column.name in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            tally.add(split, decode(file, group, names))


def _link(source: str | Path, to: str | Path) -> None:
    """A hard link; a copy where none can be made."""
    try:
        os.link(os.path.realpath(source), to)
    except OSError:
        shutil.copyfile(source, to)
