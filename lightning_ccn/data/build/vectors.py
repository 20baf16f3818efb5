"""Frozen vectors of items, from a list column of a log to a file that is mapped into memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from lightning_ccn.data.build.build_report import BuildReport
from lightning_ccn.data.build.engine import Engine, quoted
from lightning_ccn.data.build.ids import Ids
from lightning_ccn.data.build.log_columns import LogColumns
from lightning_ccn.data.build.log_files import LISTS, NUMBERS, LogFiles, in_words
from lightning_ccn.data.build.source_specs import VectorSpec
from lightning_ccn.data.build.spec import LogSpec
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.item_vectors import new_vector_file, open_vector_file
from lightning_ccn.data.page_row import ITEM
from lightning_ccn.errors import DataError

WHERE = "items.vectors"


def read_vectors(
    spec: VectorSpec, item: str, at: int, files: LogFiles, engine: Engine, as_text: bool, report: BuildReport
) -> int:
    """Makes `vectors0`, ... (by the place of the vectors): item_key and vector.

    Args:
        spec: The vectors.
        item: Column of the item's id.
        at: The place of the vectors.
        files: Their files.
        engine: The engine.
        as_text: Whether ids of items are text.
        report: Counts what is dropped.

    Returns:
        The width of the vectors.

    Raises:
        DataError: A column is missing or has no vectors, they differ in length, or an item has two.
    """
    of, column = LogColumns(files, engine), quoted(spec.column)
    kind = of.kind(spec.column, WHERE)
    if kind.removeprefix(LISTS) not in NUMBERS or not kind.startswith(LISTS):
        raise DataError(
            f"{files.paths[0]}: column {spec.column}: is {in_words(kind)}, but {WHERE} needs lists of floats; "
            "write Parquet with a list column"
        )
    table, raw = f"vectors{at}", f"raw_vectors{at}"
    engine.read(raw, files)
    key = of.key(item, f"{WHERE}.item", as_text)
    total = engine.table(
        table,
        f"SELECT * FROM (SELECT {key} AS item_key, {column} AS vector FROM {raw}) AS typed WHERE vector IS NOT NULL",
    )
    nameless = engine.rows(f"SELECT COUNT(*) AS n FROM {table} WHERE item_key IS NULL")[0]["n"]
    report.add("vectors", "read", spec.called, total)
    if nameless:
        report.drop("vectors", f"{spec.called}: no item", nameless, str(files.paths[0]))
    again = engine.rows(
        f"""
        SELECT CAST(item_key AS VARCHAR) AS item, COUNT(*) AS n FROM {table} WHERE item_key IS NOT NULL
        GROUP BY item_key HAVING COUNT(*) > 1 ORDER BY item_key LIMIT 1
        """
    )
    if again:
        raise DataError(
            f"{files.paths[0]}: column {spec.column}: item {again[0]['item']} has {again[0]['n']} vectors; keep one"
        )
    lengths = engine.rows(
        f"""
        SELECT ARRAY_LENGTH(vector) AS width, COUNT(*) AS n, MIN(CAST(item_key AS VARCHAR)) AS item FROM {table}
        GROUP BY ARRAY_LENGTH(vector) ORDER BY n DESC, width
        """
    )
    if not lengths or not lengths[0]["width"]:
        raise DataError(f"{files.paths[0]}: column {spec.column}: has no vector; leave it out of {WHERE}")
    if len(lengths) > 1:
        most, other = lengths[:2]
        raise DataError(
            f"{files.paths[0]}: column {spec.column}: has vectors of {most['width']} values (item {most['item']}) and "
            f"of {other['width']} (item {other['item']}); write all of one length"
        )
    return int(lengths[0]["width"])


def write_vectors(
    spec: LogSpec, folder: Path, engine: Engine, ids: Ids, widths: dict[str, int], older: Dataset | None
) -> None:
    """Writes the vectors of all items beside items.parquet; an item without one keeps that of the older dataset.

    Raises:
        DataError: A value is not finite, or the older dataset has not the same vectors.
    """
    for at, vector in enumerate(spec.vectors):
        name, width = vector.called, widths[vector.called]
        array = new_vector_file(folder, name, ids.sizes[ITEM], width)
        if older is not None:
            if older.schema.vectors.get(name) != width:
                there = older.schema.vectors.get(name, "none")
                raise DataError(
                    f"{older.folder}: vectors {name}: the width is {there} there, and {width} in this log; build "
                    "without --extends"
                )
            old = open_vector_file(older.folder, older.schema, name)
            array[: len(old)] = old
        query = f"""
            SELECT r.row AS row, CAST(r.id AS VARCHAR) AS item, v.vector AS vector
            FROM vectors{at} AS v JOIN {spec.rows_view(ITEM)} AS r ON v.item_key = r.id
            ORDER BY r.row, r.id
            """
        for batch in engine.stream(query):
            _fill(array, batch, name, width)


def _fill(array: np.ndarray, batch: pa.RecordBatch, name: str, width: int) -> None:
    with np.errstate(over="ignore"):  # a double that no float can hold becomes infinite
        values = batch["vector"].flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, width)
    wrong = np.flatnonzero(~np.isfinite(values).all(1))
    if len(wrong):
        item = batch["item"][int(wrong[0])].as_py()
        raise DataError(f"{WHERE}: {name} of item {item} has a value that is missing or not finite; leave the item out")
    array[batch["row"].to_numpy()] = values
