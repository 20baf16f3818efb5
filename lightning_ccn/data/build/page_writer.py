"""From the engine's streams to page rows: batch by batch, in order of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lightning_ccn.data import page_row
from lightning_ccn.data.build.build_report import BuildReport
from lightning_ccn.data.build.engine import Engine
from lightning_ccn.data.build.histories import Histories
from lightning_ccn.data.build.impressions import Impressions
from lightning_ccn.data.build.spec import USER, LogSpec
from lightning_ccn.data.dataset import SPLITS
from lightning_ccn.data.page_row import ITEM
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.writer import DatasetWriter

PAGES_PER_WRITE = 2048  # bounds the memory of the behaviours that are written at once
PAGE_IDS = "page_ids"  # the folder of the log's own page ids
NO_LIST = (page_row.SHORT_ITEMS, page_row.SHORT_TIMES), (page_row.LONG_ITEMS, page_row.LONG_TIMES)


class Beside:
    """Rows that belong to page views, read in step with them.

    Args:
        batches: Batches with the column page_no, ascending.
    """

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._left: pa.Table | None = None

    def of(self, pages: np.ndarray) -> tuple[pa.Table | None, np.ndarray]:
        """The rows of the next page views.

        Args:
            pages: Int64 [pages], their page_no, ascending.

        Returns:
            The rows, None if there are none at all; and int64 [pages], how many of them each page has.
        """
        parts = [] if self._left is None else [self._left]
        while not parts or not parts[-1].num_rows or parts[-1]["page_no"][-1].as_py() <= pages[-1]:
            batch = next(self._batches, None)
            if batch is None:
                break
            parts.append(pa.Table.from_batches([batch]))
        if not parts:
            return None, np.zeros(len(pages), np.int64)
        rows = pa.concat_tables(parts)
        owner = rows["page_no"].to_numpy()
        end = int(np.searchsorted(owner, pages[-1], side="right"))
        self._left = rows.slice(end)
        places = np.searchsorted(owner[:end], pages, side="right")
        return rows.slice(0, end), np.diff(places, prepend=0)


class PageWriter:
    """Writes all page views of a build.

    Args:
        spec: The specification.
        engine: The engine, with all tables of the build.
        impressions: How pages are known in the log.
        many: By feature with many values, its place among the users' features.
        histories: By behaviour sequence.
        report: Counts the unknown ids.
    """

    def __init__(
        self,
        spec: LogSpec,
        engine: Engine,
        impressions: Impressions,
        many: Mapping[str, int],
        histories: Mapping[str, Histories],
        report: BuildReport,
    ) -> None:
        self._spec, self._engine, self._impressions = spec, engine, impressions
        self._many, self._histories, self._report = many, histories, report
        self._single = {
            **{f.called: (f"u{at}", f.table_name) for at, f in enumerate(spec.profile) if f.called not in many},
            **{f.called: (f"f{at}", f.table_name) for at, f in enumerate(spec.exposures.features)},
        }
        sources = [*(f"g{at}" for at in range(len(spec.exposures.page_numbers)))]
        sources += [f"x{at}" for at in range(len(spec.users.numbers if spec.users else ()))]
        self._page_numbers = dict(zip(spec.page_numbers, sources, strict=True))
        self._keys: dict[str, pq.ParquetWriter] = {}

    def write(self, writer: DatasetWriter) -> int:
        """Writes the page views; returns their number."""
        shown = Beside(self._engine.stream(self._shown()))
        lists = {name: Beside(self._engine.stream(self._values(at))) for name, at in self._many.items()}
        written = 0
        try:
            for few in _even(self._engine.stream(self._pages())):
                rows = self._rows(few, shown, lists)
                split = few["split"].to_numpy()
                for at, name in enumerate(SPLITS):  # a split's pages are beside each other
                    chosen = np.flatnonzero(split == at)
                    if len(chosen):
                        part = {column: _part(values, chosen) for column, values in rows.items()}
                        self._note(name, part)
                        writer.write(name, part)
                        self._write_keys(writer.part / PAGE_IDS, name, few.slice(int(chosen[0]), len(chosen)))
                written += few.num_rows
        finally:
            for open_ in self._keys.values():
                open_.close()
        return written

    def _rows(self, pages: pa.Table, shown: Beside, lists: Mapping[str, Beside]) -> dict[str, np.ndarray | Ragged]:
        number, time = pages["page_no"].to_numpy(), pages["sec"].to_numpy()
        items, lengths = shown.of(number)
        assert items is not None  # a page view has an impression
        offsets = np.concatenate([[0], np.cumsum(lengths)])

        def of_items(name: str) -> np.ndarray:
            return items[name].to_numpy()

        rows: dict[str, np.ndarray | Ragged] = {
            page_row.PAGE_ID: pages["page_id"].to_numpy(),
            page_row.TIME: time,
            page_row.TRIGGER: pages["trigger_row"].to_numpy(),
            USER: pages["user_row"].to_numpy(),
        }
        for name in (f.called for f in (*self._spec.profile, *self._spec.exposures.features)):
            if name in lists:
                values, count = lists[name].of(number)
                found = np.zeros(0, np.int64) if values is None else values["row"].to_numpy()
                rows[name] = Ragged.from_lengths(found, count)
            else:
                rows[name] = pages[self._single[name][0]].to_numpy()
        rows[page_row.ITEMS] = Ragged(of_items("item_row"), offsets)
        rows[page_row.CLICKS] = Ragged(of_items("click").astype(np.int8), offsets)
        if self._spec.exposures.purchases:
            rows[page_row.PURCHASES] = Ragged(of_items("purchase").astype(np.int8), offsets)
        if "position" in items.column_names:
            rows[page_row.POSITIONS] = Ragged(of_items("position"), offsets)
        if self._spec.exposures.weight:
            rows[self._spec.exposures.weight.called] = Ragged(of_items("w").astype(np.float32), offsets)
        for name, column in self._page_numbers.items():
            rows[name] = pages[column].to_numpy().astype(np.float32)
        for at, name in enumerate(self._spec.numbers):
            rows[name] = Ragged(of_items(f"m{at}").astype(np.float32), offsets)
        users = pages["user_no"].to_numpy()
        for name, (item_column, time_column) in zip(("short", "long"), NO_LIST, strict=True):
            if name in self._histories:
                acts, times = self._histories[name].before(users, time, self._spec.sequences[name])
            else:
                acts = times = Ragged(np.zeros(0, np.int64), np.zeros(len(users) + 1, np.int64))
            rows[item_column], rows[time_column] = acts, times
        return rows

    def _note(self, split: str, rows: Mapping[str, np.ndarray | Ragged]) -> None:
        of_items = [page_row.TRIGGER] if self._spec.exposures.trigger else []
        of_items += [page_row.ITEMS, *(f"{name}_items" for name in self._histories)]
        for name in (USER, *self._single, *self._many, *of_items):
            column = rows[name]
            self._report.add_ids(split, name, column.values if isinstance(column, Ragged) else column)

    def _pages(self) -> str:
        """Page views in order of time, with rows in place of ids."""
        page_id = "p.k0" if self._impressions.raw_page_id else "p.page_no"
        columns = {
            "page_id": page_id,
            "page_no": "p.page_no",
            "sec": "p.sec",
            "split": "p.split",
            "user_no": "v.user_no",
            "user_row": "COALESCE(ru.row, 0)",
            "trigger_row": "COALESCE(rt.row, 0)" if self._spec.exposures.trigger else "CAST(0 AS BIGINT)",
            **{key: f"p.{key}" for key in self._impressions.kinds},
        }
        joins = [
            "JOIN visitors AS v ON p.user_key = v.user_key",
            f"LEFT JOIN {self._spec.rows_view(USER)} AS ru ON p.user_key = ru.id",
        ]
        if self._spec.exposures.trigger:
            joins.append(f"LEFT JOIN {self._spec.rows_view(ITEM)} AS rt ON p.trigger_key = rt.id")
        if self._spec.users:
            joins.append("LEFT JOIN page_versions AS pv ON p.page_no = pv.page_no")
            joins.append("LEFT JOIN profiles AS pr ON pv.user_key = pr.user_key AND pv.version = pr.version")
        for column, table in self._single.values():
            source = "pr" if column.startswith("u") else "p"
            columns[column] = f"COALESCE(r{column}.row, 0)"
            joins.append(f"LEFT JOIN {self._spec.rows_view(table)} AS r{column} ON {source}.{column} = r{column}.id")
        for column in self._page_numbers.values():
            columns[column] = f"{'pr' if column.startswith('x') else 'p'}.{column}"
        chosen = ", ".join(f"{value} AS {name}" for name, value in columns.items())
        return f"SELECT {chosen} FROM pages AS p {' '.join(joins)} ORDER BY page_no"

    def _shown(self) -> str:
        """Impressions in order of their page views, and of their place on them."""
        spec, joins = self._spec, [f"LEFT JOIN {self._spec.rows_view(ITEM)} AS r ON s.item_key = r.id"]
        columns = {"page_no": "s.page_no", "rn": "s.rn", "item_row": "COALESCE(r.row, 0)"}
        for name, label in spec.labels.items():
            own = name.removesuffix("s")
            columns[own] = f"s.{own}"
            if label.of_events:
                columns[own] = f"CASE WHEN l{own}.page_no IS NULL THEN 0 ELSE 1 END"
                same = f"s.page_no = l{own}.page_no AND s.item_key = l{own}.item_key"
                joins.append(f"LEFT JOIN labelled_{name} AS l{own} ON {same}")
        if self._impressions.has_positions:
            columns["position"] = "COALESCE(s.position, 0)"
        if spec.exposures.weight:
            columns["w"] = "s.w"
        for at in range(len(spec.exposures.numbers)):
            columns[f"m{at}"] = f"s.n{at}"
        if spec.items and spec.items.numbers:
            joins.append("LEFT JOIN catalogue AS c ON s.item_key = c.item_key")
            for at in range(len(spec.items.numbers)):
                columns[f"m{len(spec.exposures.numbers) + at}"] = f"c.c{at}"
        chosen = ", ".join(f"{value} AS {name}" for name, value in columns.items())
        return f"SELECT {chosen} FROM shown AS s {' '.join(joins)} ORDER BY page_no, rn"

    def _values(self, at: int) -> str:
        """The values of a users' feature with many, in order of page views."""
        table = self._spec.profile[at].table_name
        return f"""
            SELECT pv.page_no AS page_no, m.place AS place, COALESCE(r.row, 0) AS row
            FROM page_versions AS pv JOIN many{at} AS m ON pv.user_key = m.user_key AND pv.version = m.version
            LEFT JOIN {self._spec.rows_view(table)} AS r ON m.id = r.id
            ORDER BY page_no, place
            """

    def _write_keys(self, folder: Path, split: str, pages: pa.Table) -> None:
        """The log's own page ids beside those of the dataset, unless they are the same."""
        if self._impressions.raw_page_id:
            return
        raw = {f"raw_{column}": pages[key] for key, column in self._impressions.kinds.items()}
        table = pa.table({"page_id": pages["page_id"], **raw})
        if split not in self._keys:
            folder.mkdir(exist_ok=True)
            self._keys[split] = pq.ParquetWriter(folder / f"{split}.parquet", table.schema, compression="zstd")
        self._keys[split].write_table(table)


def _even(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The same rows, `PAGES_PER_WRITE` at a time: a mean of floats depends on how they are put together."""
    left: pa.Table | None = None
    for batch in batches:
        more = pa.Table.from_batches([batch])
        left = more if left is None else pa.concat_tables([left, more])
        while left.num_rows >= PAGES_PER_WRITE:
            yield left.slice(0, PAGES_PER_WRITE)
            left = left.slice(PAGES_PER_WRITE)
    if left is not None and left.num_rows:
        yield left


def _part(column: np.ndarray | Ragged, rows: np.ndarray) -> np.ndarray | Ragged:
    """A column of the rows from the first to the last of `rows`."""
    first, end = int(rows[0]), int(rows[-1]) + 1
    if not isinstance(column, Ragged):
        return column[first:end]
    offsets = column.offsets[first : end + 1]
    return Ragged(column.values[offsets[0] : offsets[-1]], offsets - offsets[0])
