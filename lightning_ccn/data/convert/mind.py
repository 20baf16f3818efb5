"""Converts MIND, the click log of Microsoft News.

The official layout is `train/` and `dev/`, each with `behaviors.tsv` (one row per impression: user, time, clicked news
so far, news in view with their clicks) and `news.tsv` (news id, category, subcategory, texts). One impression is one
page view. Files are read twice, in chunks. Memory: the vocabularies, the news categories and 8 bytes per page view.
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
    write_pages,
)
from lightning_ccn.data.ragged import ranges
from lightning_ccn.data.writer import DatasetWriter
from lightning_ccn.errors import DataError

TRIGGER = "none in this log; the news that the user clicked last is used instead, so draw no conclusions about triggers"
CHUNK_BYTES = 8 << 20  # also the largest length of a line

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
    cut_long_length: int | None = None,
    extends: str | Path | None = None,
) -> ConversionReport:
    """Writes a dataset folder from MIND logs.

    MIND has no triggers (a trigger is the item that the user clicked to enter a page). The last news that the user
    clicked takes its place. It also stays among the behaviours, so that systems without a trigger lose nothing. The
    user did not enter the page through it, so this data supports no claims about triggers. Histories have an order but
    no times: the k-th behaviour from the end gets the page's time minus k seconds. `page_id` is the line number in
    behaviors.tsv, where dev/ continues the count of train/. The per-item number `item_age` is ln(1 + hours) since the
    news first appeared on a page of these files; in their first days, it underestimates the true age.

    Args:
        source: Folder with `train/`, or with `behaviors.tsv` and `news.tsv` themselves.
        folder: Dataset folder to write.
        drop_trigger: Remove the trigger from the items of its own page.
        without_history: Keep impressions of users without a history; they have neither a trigger nor behaviours.
        split: `time` splits all page views by `validation` and `test`; `official` starts the test split at
            the first page view of `dev/`.
        validation: Share of the page views for validation; with `official`, share of those before the test split.
        test: Share of the page views for the test, the latest ones; ignored with `official`.
        short: Length of the short behaviour sequence, which is the end of the long one.
        long: How many of the most recent behaviours are kept per page view.
        cut_long_length: Cut the long sequences to what a search for this many or fewer behaviours of each category of a
            page can ask for, as `ccn data cut` does, but without a second folder.
        extends: Older dataset folder to extend: its ids keep their rows, and the new dataset has its features.

    Returns:
        Counts of what was read, dropped and kept; they are also written to report.json in the folder.

    Raises:
        DataError: A file is missing, a line is malformed or has no clicks, an option is out of range, or no
            page view is left to train on.
    """
    options = dict(locals())
    check_options(validation, test, short, long)
    logs = find_logs(Path(source), "dev", FILES)
    if split == "official" and len(logs) == 1:
        raise DataError(f"{source}: has no dev/ folder, which split=official needs; use split=time")
    encoder = Encoder(extends, {})
    profile = encoder.features("user", ["user"], ["user"])
    attributes = encoder.features("attributes", ATTRIBUTES, ATTRIBUTES)
    report = ConversionReport(options, TRIGGER)
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
    with DatasetWriter(folder, encoder.schema(profile, attributes, cut_long_length)) as writer:
        for pages, behaviours in _pages(logs, drop_trigger, without_history, long, report):
            write_pages(writer, encoder, pages, behaviours, ages, cuts, short, report)
        if not writer.stats["train"].pages:
            raise DataError(f"{source}: no page view is left to train on; {report.losses('impressions')}")
        catalogue = pa.concat_tables(
            table.select(["id", *ATTRIBUTES]) for log in logs for _, table in _read(log / "news.tsv", NEWS)
        )
        columns, missing = encoder.attributes(attributes, catalogue)
        report.add("news", "noted", "on pages or in histories, not in news.tsv", missing)
        schema = encoder.schema(profile, attributes, cut_long_length)
        writer.close(columns, encoder.vocabularies, schema, {"report.json": report.to_json()})
    return report


def _read(path: Path, names: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
    """Streams a TSV file as pairs: the line number of the first row, from 1, and a table of strings."""
    malformed: list[str] = []

    def reject(row: csv.InvalidRow) -> str:
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
                delimiter="\t", quote_char=False, ignore_empty_lines=False, invalid_row_handler=reject
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
        raise DataError(
            f"{path}: {why}; MIND's {path.name} has {len(names)} fields per line, separated by tabs"
        ) from None


def _pages(
    logs: Sequence[Path], drop_trigger: bool, without_history: bool, long: int, report: ConversionReport
) -> Iterator[tuple[Pages, Behaviours]]:
    """Page views and their behaviours, in chunks; each chunk is in order of time."""
    before = 0  # number of lines in the previous logs
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
            item, clicked = _candidates(path, lines, page, candidate)
            code = item.dictionary_encode().indices.to_numpy().astype(np.int64)
            kept, clicks = merge_exposures(page, code, page[clicked], code[clicked], report)
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
                page=page[kept],
                item=item.take(pa.array(kept)),
                clicks=clicks,
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
    """The last `lengths[row]` behaviours of each row's history, which ends at `ends[row]` in `past`.

    The log has no times, so behaviours are one second apart.
    """

    def of(first: int, last: int) -> tuple[pa.Array, np.ndarray, np.ndarray]:
        count, end = lengths[pages.owner[first:last]], ends[pages.owner[first:last]]
        at = ranges(end - count, count)
        ago = np.repeat(end, count) - at
        return past.take(pa.array(at)), np.repeat(pages.time[first:last], count) - ago, count

    return of


def _times(path: Path, line: int, text: pa.Array) -> np.ndarray:
    """Int64 seconds since 1970 of times such as 11/11/2019 9:05:58 AM, read as UTC."""
    times = pc.strptime(text, format="%m/%d/%Y %I:%M:%S %p", unit="s", error_is_null=True)
    if times.null_count:
        at = pc.index(pc.is_null(times), True).as_py()
        raise DataError(
            f"{path}: line {line + at}, field Time: {text[at].as_py()!r}; write it as month/day/year "
            "hour:minute:second AM or PM, such as 11/11/2019 9:05:58 AM"
        )
    return times.cast(pa.int64()).to_numpy()


def _words(text: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Splits each row at spaces: the row of each word, int64 [words], and the words."""
    split = pc.split_pattern(text, " ")
    words = split.flatten()
    row = np.repeat(np.arange(len(text)), pc.list_value_length(split).to_numpy())
    not_empty = pc.not_equal(words, "")
    return row[not_empty.to_numpy(zero_copy_only=False)], words.filter(not_empty)


def _candidates(path: Path, lines: np.ndarray, row: np.ndarray, candidate: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Splits news in view, such as N123-1, into ids and whether each was clicked, bool."""
    good = pc.match_substring_regex(candidate, "^.+-[01]$")
    if not pc.all(good, min_count=0).as_py():
        at = pc.index(good, False).as_py()
        value = candidate[at].as_py()
        remedy = "write news id, hyphen, 0 or 1"
        if "-" not in value:
            remedy = "it does not say whether it was clicked, as in MIND's test files; convert train/ and dev/"
        raise DataError(f"{path}: line {lines[row[at]]}, field Impressions: {value!r}; {remedy}")
    clicked = pc.ends_with(candidate, "-1").to_numpy(zero_copy_only=False)
    return pc.utf8_slice_codeunits(candidate, 0, -2), clicked
