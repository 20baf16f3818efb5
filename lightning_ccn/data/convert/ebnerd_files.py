"""Reads the files of EB-NeRD's official layout as streams, and distributes them by user."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lightning_ccn.data.convert.encoder import ItemTimes
from lightning_ccn.data.convert.source_columns import lists, read_columns
from lightning_ccn.data.parquet import open_part
from lightning_ccn.errors import DataError

FILES = ("behaviors.parquet", "history.parquet")

# Kinds of columns, see `read_columns`.
IMPRESSION = {
    "impression_id": "integer",
    "user_id": "integer",
    "session_id": "integer",
    "impression_time": "time",
    "article_id": "integer?",
    "article_ids_inview": "integers",
    "article_ids_clicked": "integers",
}
HISTORY = {"user_id": "integer", "impression_time_fixed": "times", "article_id_fixed": "integers"}
PROFILE = ("device_type", "is_subscriber", "is_sso_user", "gender", "age", "postcode")
# total_inviews, total_pageviews and total_read_time are no features: they count the whole log with the test split
ATTRIBUTES = ("category", "subcategory", "premium", "article_type")


def shared_columns(logs: Sequence[Path], wanted: Sequence[str]) -> list[str]:
    """Those of the wanted columns that behaviors.parquet of every log has."""
    found = list(wanted)
    for log in logs:
        with open_part(log / "behaviors.parquet") as file:
            found = [name for name in found if name in file.schema_arrow.names]
    return found


def read_articles(source: Path) -> tuple[pa.Table, ItemTimes]:
    """Reads articles.parquet from the folder or its parent, if it exists.

    Returns:
        The catalogue (`id` and attributes; empty without a file), and the publication times (empty without them).
    """
    ages = ItemTimes()
    paths = [path for path in (source / "articles.parquet", source.parent / "articles.parquet") if path.is_file()]
    if not paths:
        return pa.table({"id": pa.array([], pa.int64())}), ages
    wanted = {"published_time": "time?", "subcategory": "integers"} | {
        name: "value?" for name in ATTRIBUTES if name != "subcategory"
    }
    catalogue = pa.concat_tables(read_columns(paths[0], {"article_id": "integer"}, wanted)).combine_chunks()
    if "published_time" in catalogue.column_names:
        dated = catalogue.filter(pc.is_valid(catalogue["published_time"]))
        ages.add(dated["article_id"], dated["published_time"])
    if "subcategory" in catalogue.column_names:  # keep the first: an item has one value per attribute
        lengths, values = lists(catalogue["subcategory"])
        first = pa.array(np.cumsum(lengths) - lengths, mask=lengths == 0)
        at = catalogue.column_names.index("subcategory")
        catalogue = catalogue.set_column(at, "subcategory", values.take(first))
    return catalogue.rename_columns(["id", *catalogue.column_names[1:]]), ages


def first_time(log: Path) -> int:
    """Time of the first impression, int seconds."""
    times = read_columns(log / "behaviors.parquet", {"impression_time": "time"})
    return min(pc.min(table["impression_time"]).as_py() for table in times)


def read_impressions(
    logs: Sequence[Path], profile: Sequence[str], log_clicks: bool, first_seen: ItemTimes | None
) -> Iterator[pa.Table]:
    """The impressions of all logs, with the number of their log; records items in `first_seen`."""
    columns = IMPRESSION | ({"read_time": "number?"} if log_clicks else {})
    for number, log in enumerate(logs):
        for table in read_columns(log / "behaviors.parquet", columns, dict.fromkeys(profile, "value?")):
            if first_seen is not None:
                lengths, items = lists(table["article_ids_inview"])
                first_seen.add(items, np.repeat(table["impression_time"].to_numpy(), lengths))
            # a fixed order of columns: a spill file has one schema
            table = table.select([*columns, *profile])
            yield table.append_column("log", pa.array(np.full(len(table), number)))


def read_histories(logs: Sequence[Path], first_seen: ItemTimes | None) -> Iterator[pa.Table]:
    """The histories of all logs, with the number of their log; records items in `first_seen`."""
    for number, log in enumerate(logs):
        row = 0
        for table in read_columns(log / "history.parquet", HISTORY, rows=8192):
            lengths, items = lists(table["article_id_fixed"])
            timed, times = lists(table["impression_time_fixed"])
            if (lengths != timed).any():
                at = int(np.flatnonzero(lengths != timed)[0])
                raise DataError(
                    f"{log / 'history.parquet'}: row {row + at} has {lengths[at]} values in article_id_fixed and "
                    f"{timed[at]} in impression_time_fixed; each article read needs its time"
                )
            row += len(table)
            if first_seen is not None:
                first_seen.add(items, times)
            yield table.append_column("log", pa.array(np.full(len(table), number)))


def spread_by_user(tables: Iterable[pa.Table], stem: str, files: int) -> None:
    """Writes each row to the file `<stem>-<user_id modulo files>.parquet`."""
    with ExitStack() as stack:
        writers: list[pq.ParquetWriter] = []
        for table in tables:
            for number in range(len(writers), files):
                writer = pq.ParquetWriter(f"{stem}-{number}.parquet", table.schema, compression="lz4")
                writers.append(stack.enter_context(writer))
            file = table["user_id"].to_numpy() % files
            table = table.take(pa.array(np.argsort(file, kind="stable")))
            bounds = np.searchsorted(np.sort(file), np.arange(files + 1))
            for writer, begin, end in zip(writers, bounds[:-1], bounds[1:], strict=True):
                writer.write_table(table.slice(begin, end - begin))
