"""MIND, the click log of Microsoft News -> page views.

The official layout: `train/` and `dev/`, each with `behaviors.tsv` (one row an impression: user, time, clicked news
so far, news in view with labels) and `news.tsv` (news id, category, subcategory, texts). One impression is one page
view. Files are read twice, in chunks; held are the vocabularies, the news categories and 8 bytes a page view.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from lightning_ccn.data.convert.encoder import Encoder, ItemTimes
from lightning_ccn.data.convert.pages import (
    Behaviours,
    ConversionReport,
    Cuts,
    Pages,
    check_options,
    find_logs,
    merge_exposures,
    ranges,
    write_pages,
)
from lightning_ccn.data.writer import DatasetWriter
from lightning_ccn.errors import DataError

CHUNK_BYTES = 8 << 20  # no line may be longer

FILES = ("behaviors.tsv", "news.tsv")
BEHAVIORS = ("impression", "user", "time", "history", "in_view")
NEWS = ("id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities")
ATTRIBUTES = ("category", "subcategory")


def convert_mind(
    source: str | Path,
    folder: str | Path,
    *,
    drop_trigger: bool = True,
    without_history: bool = False,
    split: Literal["time", "official"] = "time",
    validation: float = 0.1,
    test: float = 0.2,
    short: int = 20,
    long: int = 300,
    extends: str | Path | None = None,
) -> ConversionReport:
    """Makes a dataset folder of MIND logs.

    MIND has no trigger: the last news that the user clicked stands in for it, and stays in the behaviours, so that
    systems that know no trigger lose nothing. It was not the way into the page, so claim nothing about triggers
    on this data. Histories have an order but no times: behaviour k from the end is given the page's time minus k
    seconds. `page_id` is the line of behaviors.tsv, counted on from train/ to dev/. The per-item number `item_age`
    is ln(1 + hours) since the news first stood on a page of these files; it is short of the truth in their
    first days.

    Args:
        source: folder with `train/`, or with `behaviors.tsv` and `news.tsv` themselves.
        folder: the dataset folder to write.
        drop_trigger: take the trigger out of its own page's items.
        without_history: keep impressions of users without a history; they have no trigger (0), no behaviours.
        split: `time` cuts all page views by `validation` and `test`; `official` begins the test split with
            the first page view of `dev/`.
        validation: share of the page views; with `official`, of those before the test split.
        test: share of the page views, the latest; without effect with `official`.
        short: length of the short behaviour sequence, the end of the long one.
        long: most recent behaviours kept of each page view.
        extends: an older dataset folder to go on from: its table rows keep their meaning, its features are kept.

    Returns:
        What was read, dropped and kept; also in the folder, as report.json.

    Raises:
        DataError: a file is missing, a line is malformed or without labels, an option is out of range, or no
            page view is left to train on.
    """
    options = dict(locals())
    check_options(validation, test, short, long)
    logs = find_logs(Path(source), "dev", FILES)
    if split == "official" and len(logs) == 1:
        raise DataError(f"{source}: has no dev/ folder, which split=official tests on; use split=time")
    encoder = Encoder(extends, {})
    profile = encoder.features("user", ["user"], ["user"])
    attributes = encoder.features("attributes", ATTRIBUTES, ATTRIBUTES)
    report = ConversionReport(options)
    ages = ItemTimes()
    times = []
    for log in logs:
        found = [np.zeros(0, np.int64)]
        for pages, _ in _pages([log], drop_trigger, without_history, long, ConversionReport()):
            found.append(pages.time)
            ages.add(pages.item, pages.time[pages.page])
        times.append(np.concatenate(found))
    begin = int(times[1].min(initial=np.iinfo(np.int64).max)) if split == "official" else None
    cuts = Cuts.at(np.concatenate(times), validation, test, begin)
    with DatasetWriter(folder, encoder.schema(profile, attributes)) as writer:
        for pages, behaviours in _pages(logs, drop_trigger, without_history, long, report):
            write_pages(writer, encoder, pages, behaviours, ages, cuts, short, report)
        if not writer.stats["train"].pages:
            raise DataError(f"{source}: no page view is left to train on; {report.losses('impressions')}")
        catalogue = pa.concat_tables(
            table.select(["id", *ATTRIBUTES]) for log in logs for _, table in _read(log / "news.tsv", NEWS)
        )
        columns, missing = encoder.attributes(attributes, catalogue)
        report.add("news", "noted", "on pages or in histories, not in news.tsv", missing)
        schema = encoder.schema(profile, attributes)
        writer.close(columns, encoder.vocabularies, schema, {"report.json": report.to_json()})
    return report


def _read(path: Path, names: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
    """Streams a TSV file: (line of the first row, from 1; table of strings)."""
    malformed: list[str] = []

    def refuse(row: csv.InvalidRow) -> str:
        malformed.append(
            f"line {row.number} has {row.actual_columns} fields, not {row.expected_columns}: {row.text[:80]!r}"
        )
        return "error"

    line = 1
    try:
        reader = csv.open_csv(
            path,
            read_options=csv.ReadOptions(column_names=names, block_size=CHUNK_BYTES, use_threads=False),
            parse_options=csv.ParseOptions(
                delimiter="\t", quote_char=False, ignore_empty_lines=False, invalid_row_handler=refuse
            ),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
        for batch in reader:
            yield line, pa.Table.from_batches([batch])
            line += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        why = malformed[0] if malformed else f"from line {line} on: {error}"
        raise DataError(f"{path}: {why}; MIND's {path.name} has {len(names)} fields a line, between tabs") from None


def _pages(
    logs: Sequence[Path], drop_trigger: bool, without_history: bool, long: int, report: ConversionReport
) -> Iterator[tuple[Pages, Behaviours]]:
    """Page views and their behaviours, chunk by chunk; in order of time within a chunk."""
    before = 0  # lines of the logs before
    for log in logs:
        path, last = log / "behaviors.tsv", 0
        for line, table in _read(path, BEHAVIORS):
            time = _times(path, line, table["time"].combine_chunks())
            order = np.argsort(time, kind="stable")
            time, lines, table = time[order], line + order, table.take(pa.array(order))
            report.add("impressions", "read", "total", len(table))
            report.add("pages", "read", "total", len(table))
            past_of, past = _words(table["history"].combine_chunks())
            page, candidate = _words(table["in_view"].combine_chunks())
            item, click = _labelled(path, lines, page, candidate)
            code = item.dictionary_encode().indices.to_numpy().astype(np.int64)
            stay, click = merge_exposures(page, code, page[click], code[click], report)
            lengths = np.bincount(past_of, minlength=len(table))
            ends = np.cumsum(lengths)
            rows = np.arange(len(table))
            pages = Pages(
                page_id=before + lines,
                time=time,
                last=time,
                impressions=np.ones_like(rows),
                owner=rows,
                trigger=past.take(pa.array(ends - 1, mask=lengths == 0)),
                profile=table.select(["user"]),
                page=page[stay],
                item=item.take(pa.array(stay)),
                click=click,
            )
            if not without_history:
                pages = pages.drop(lengths == 0, "user without a history: no trigger", report)
            if drop_trigger:
                pages = pages.without_trigger(report)
            pages = pages.drop(pages.lengths == 0, "no item on the page view", report)
            yield pages, _behaviours(pages, past, ends, np.minimum(lengths, long))
            last = line + len(table) - 1
        before += last


def _behaviours(pages: Pages, past: pa.Array, ends: np.ndarray, lengths: np.ndarray) -> Behaviours:
    """The last `lengths[row]` of each row's history, which ends at `ends[row]`; one second apart, for want of times."""

    def of(first: int, last: int) -> tuple[pa.Array, np.ndarray, np.ndarray]:
        count, end = lengths[pages.owner[first:last]], ends[pages.owner[first:last]]
        at = ranges(end - count, count)
        ago = np.repeat(end, count) - at
        return past.take(pa.array(at)), np.repeat(pages.time[first:last], count) - ago, count

    return of


def _times(path: Path, line: int, text: pa.Array) -> np.ndarray:
    """Seconds since 1970 of times such as 11/11/2019 9:05:58 AM, taken as UTC."""
    times = pc.strptime(text, format="%m/%d/%Y %I:%M:%S %p", unit="s", error_is_null=True)
    if times.null_count:
        at = pc.index(pc.is_null(times), True).as_py()
        raise DataError(
            f"{path}: line {line + at}, field Time: {text[at].as_py()!r}; write it as month/day/year "
            "hour:minute:second AM or PM, such as 11/11/2019 9:05:58 AM"
        )
    return times.cast(pa.int64()).to_numpy()


def _words(text: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """The words of each row: int64 [words], its row; the words."""
    split = pc.split_pattern(text, " ")
    words = split.flatten()
    row = np.repeat(np.arange(len(text)), pc.list_value_length(split).to_numpy())
    there = pc.not_equal(words, "")
    return row[there.to_numpy(zero_copy_only=False)], words.filter(there)


def _labelled(path: Path, lines: np.ndarray, row: np.ndarray, candidate: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """News in view, such as N123-1: ids, and whether each was clicked."""
    good = pc.match_substring_regex(candidate, "^.+-[01]$")
    if not pc.all(good, min_count=0).as_py():
        at = pc.index(good, False).as_py()
        value = candidate[at].as_py()
        remedy = "write news id, hyphen, 0 or 1"
        if "-" not in value:
            remedy = "it has no label, as in MIND's test files; convert train/ and dev/, which have"
        raise DataError(f"{path}: line {lines[row[at]]}, field Impressions: {value!r}; {remedy}")
    clicked = pc.ends_with(candidate, "-1").to_numpy(zero_copy_only=False)
    return pc.utf8_slice_codeunits(candidate, 0, -2), clicked
