"""From original ids to rows of tables: by a vocabulary of those that are frequent enough, or by a hash."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lightning_ccn.data.build.build_report import BuildReport
from lightning_ccn.data.build.engine import Engine
from lightning_ccn.data.build.spec import USER, AdmissionSpec
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.page_row import ITEM
from lightning_ccn.data.splitmix64 import hash_rows
from lightning_ccn.data.vocabulary import Vocabulary
from lightning_ccn.errors import DataError

GOLDEN = (5**0.5 - 1) / 2  # its multiples fill a circle more evenly than those of any other number


def stride(rows: int) -> int:
    """From the row of each id to that of the next less frequent one, going round.

    It reaches every row, and any number of the most frequent ids has nearly equally many in each block of rows.

    Args:
        rows: Number of rows to deal.

    >>> [place * stride(8) % 8 for place in range(8)]
    [0, 5, 2, 7, 4, 1, 6, 3]
    """
    step = max(round(rows * GOLDEN), 1)
    while math.gcd(step, rows) > 1:
        step += 1
    return step


class Ids:
    """Makes the vocabularies of a dataset, and a view (id, row) of each table, see `LogSpec.rows_view`.

    Args:
        engine: The engine.
        folder: A folder for the rows of ids.
        older: An older dataset, whose ids keep their rows; None: there is none.

    Attributes:
        vocabularies: By table; a hashed table has none.
        sizes: Number of rows of each table, with row 0.
    """

    def __init__(self, engine: Engine, folder: Path, older: Dataset | None) -> None:
        self._engine, self._folder, self._older = engine, folder, older
        self.vocabularies: dict[str, Vocabulary] = {}
        self.sizes: dict[str, int] = {}
        self._known: dict[str, int] = {}  # by table with older ids, how many of them the log has

    def add(self, table: str, view: str, seen: str, admission: AdmissionSpec, as_text: bool) -> int:
        """Makes the rows of a table.

        Frequent ids are dealt evenly over the new rows, see `stride`: ranks hold blocks of rows, and
        should have equally much to look up.

        Args:
            table: Name of the table.
            view: Name of the view to make.
            seen: A query with the columns id, and n, how often it occurs before the validation split; ids may repeat.
            admission: Which ids get a row.
            as_text: Whether the ids are text.

        Returns:
            Number of ids that got a new row.

        Raises:
            DataError: The older dataset has another mapping or type of the table.
        """
        self._refuse_other_mapping(table, admission)
        counted = f"SELECT id, SUM(n) AS n FROM ({seen}) AS seen WHERE id IS NOT NULL GROUP BY id"
        if admission.hash:
            ids = self._engine.stream(f"SELECT id FROM ({counted}) AS counted")
            self._save(view, ((batch["id"], _hashed(batch["id"], admission.hash)) for batch in ids), as_text)
            self.sizes[table] = admission.hash
            return 0
        old = self._old(table, as_text)
        known = ((ids, np.arange(1, len(ids) + 1)) for ids in [old.ids] if len(ids))
        self._save(f"{view}_old", known, as_text)
        if len(old.ids):
            both = f"SELECT COUNT(*) AS n FROM ({counted}) AS c JOIN {view}_old AS o ON c.id = o.id"
            self._known[table] = self._engine.rows(both)[0]["n"]
        new = (
            f"SELECT c.id, c.n FROM ({counted}) AS c LEFT JOIN {view}_old AS o ON c.id = o.id WHERE o.id IS NULL AND "
            f"c.n >= {admission.at_least}"
        )
        count = self._engine.number(f"new_{view}", new, "n DESC, id", "place")
        dealt = f"((place - 1) * {stride(count)}) % {max(count, 1)} + {len(old)}"
        self._engine.view(view, f"SELECT id, row FROM {view}_old UNION ALL SELECT id, {dealt} AS row FROM new_{view}")
        added = [batch["id"] for batch in self._engine.stream(f"SELECT id FROM new_{view} ORDER BY {dealt}")]
        ids = pa.concat_arrays(
            [each.cast(_type(as_text)) for each in [old.ids, *added] if len(each)] or [_none(as_text)]
        )
        self.vocabularies[table] = Vocabulary(ids)
        self.sizes[table] = max(len(ids) + 1, 2)  # a table needs a row besides the unknown one, even if it stays unused
        return count

    def warn_of_another_log(self, report: BuildReport) -> None:
        """Warns if the older dataset shares neither a user nor an item with the log: it may be of another one.

        A hashed table says nothing of its ids.

        Args:
            report: Takes the warning.
        """
        known = {table: count for table, count in self._known.items() if table in (USER, ITEM)}
        if self._older is not None and known and not any(known.values()):
            report.warnings.append(
                f"{self._older.folder}: none of its ids in {' and '.join(known)} is in this log, so --extends gives "
                "all of the log's new rows; is it the dataset of another log?"
            )

    def _old(self, table: str, as_text: bool) -> Vocabulary:
        if self._older is None:
            return Vocabulary()
        old = Vocabulary.load(self._older.folder / "vocabulary" / f"{table}.parquet")
        if len(old) > 1 and pa.types.is_integer(old.ids.type) == as_text:
            there, here = ("text", "integers") if not as_text else ("integers", "text")
            raise DataError(
                f"{self._older.folder}: the ids of table '{table}' are {there}, but those of this log are {here} (ids "
                "of CSV files are text); write both as one type"
            )
        return old

    def _refuse_other_mapping(self, table: str, admission: AdmissionSpec) -> None:
        if self._older is None:
            return
        stored = self._older.schema.tables.get(table)
        if stored is None:
            raise DataError(
                f"{self._older.folder}: has no table '{table}', but a dataset that extends it must have its tables; "
                "build without --extends"
            )
        wanted = stored.rows if stored.mapping == "hash" else None
        if admission.hash != wanted:
            remedy = f"{{hash: {wanted}}}" if wanted else "no hash"
            raise DataError(
                f"{self._older.folder}: table '{table}' has {stored.rows} rows, mapping {stored.mapping}, which a "
                f"dataset that extends it must keep; write vocabulary.{table} with {remedy}"
            )

    def _save(self, name: str, parts: Iterator[tuple[pa.Array, np.ndarray]], as_text: bool) -> None:
        """A view of ids and rows, by way of a file: ids may be more than fit into memory."""
        schema = pa.schema({"id": _type(as_text), "row": pa.int64()})
        path = self._folder / f"{name}.parquet"
        with pq.ParquetWriter(path, schema) as writer:
            for ids, rows in parts:
                writer.write_batch(pa.record_batch([ids.cast(_type(as_text)), pa.array(rows)], schema=schema))
        self._engine.view(name, self._engine.file(path))


def _type(as_text: bool) -> pa.DataType:
    return pa.string() if as_text else pa.int64()


def _none(as_text: bool) -> pa.Array:
    return pa.array([], _type(as_text))


def _hashed(ids: pa.Array, rows: int) -> np.ndarray:
    """Rows of ids by hash; of a text, its first 8 bytes of BLAKE2b are hashed as an integer is."""
    if pa.types.is_integer(ids.type):
        return hash_rows(ids.to_numpy(), rows)
    texts = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in pc.cast(ids, pa.string()).to_pylist())
    return hash_rows(np.frombuffer(b"".join(texts), dtype="<i8"), rows)
