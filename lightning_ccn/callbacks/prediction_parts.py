"""The Parquet parts of a prediction: a rank begins a new one every so many batches, and finished ones are kept."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

BATCHES = 500  # global batches whose scores are in one part of each rank
NAME = re.compile(r"part-(\d{5,})-(\d{5,})\.parquet")


class PredictionParts:
    """This rank's parts, from one of them on.

    Args:
        folder: Where to write them.
        rank: This process's rank.
        schema: Columns of a part.
        first: Number of the first part; what this rank has written from there on is removed.
    """

    def __init__(self, folder: Path, rank: int, schema: pa.Schema, first: int = 0) -> None:
        self._folder, self._rank, self._schema, self._first = folder, rank, schema, first
        self._number = -1
        self._writer: pq.ParquetWriter | None = None
        self._open: Path | None = None
        for number, of_rank, path in _parts(folder):
            if of_rank == rank and number >= first:
                path.unlink()

    def write(self, batch: int, columns: Mapping[str, pa.Array]) -> None:
        """Appends the scores of a batch.

        Args:
            batch: How many batches of this run come before it.
            columns: The columns of the schema by name.
        """
        number = self._first + batch // BATCHES
        if number != self._number or self._writer is None:
            self.close()
            self._number, self._open = number, self._path(number).with_suffix(".unfinished")
            self._writer = pq.ParquetWriter(self._open, self._schema, compression="zstd")
        self._writer.write_batch(pa.record_batch([columns[name] for name in self._schema.names], schema=self._schema))

    def close(self) -> None:
        """Ends the part that is being written, which is then whole."""
        if self._writer is not None and self._open is not None:
            self._writer.close()
            os.replace(self._open, self._open.with_suffix(".parquet"))
            self._writer = None

    def write_one_at_least(self) -> None:
        """Writes a part without rows if this rank has none: a folder of parts has the columns even of no score."""
        if not any(rank == self._rank for _, rank, _ in _parts(self._folder)):
            pq.write_table(self._schema.empty_table(), self._path(self._first), compression="zstd")

    def _path(self, number: int) -> Path:
        return self._folder / f"part-{number:05d}-{self._rank:05d}.parquet"


def whole_parts(folder: Path, ranks: int) -> int:
    """How many parts, from the first one on, every rank has finished."""
    there = {(number, rank) for number, rank, _ in _parts(folder)}
    count = 0
    while all((count, rank) in there for rank in range(ranks)):
        count += 1
    return count


def are_finished(folder: Path) -> bool:
    """Whether a folder has the parts of a prediction and nothing else, as one that has finished."""
    return folder.is_dir() and 0 < len(_parts(folder)) == len(list(folder.iterdir()))


def metadata_of(folder: Path) -> dict[bytes, bytes]:
    """What the schema of a finished prediction's parts says beside its columns; nothing for another folder."""
    if not are_finished(folder):
        return {}
    *_, path = min(_parts(folder))
    return pq.read_schema(path).metadata or {}


def _parts(folder: Path) -> list[tuple[int, int, Path]]:
    """(number, rank, path) of each finished part."""
    found = [(NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return [(int(match[1]), int(match[2]), path) for match, path in found if match]
