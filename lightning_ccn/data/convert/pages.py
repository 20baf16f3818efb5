"""What converters share: merging exposures into pages, cutting splits by time, counting, writing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lightning_ccn.data import page_row
from lightning_ccn.data.convert.encoder import Encoder, ItemTimes
from lightning_ccn.data.dataset import SPLITS
from lightning_ccn.data.page_row import ITEM, ITEM_AGE
from lightning_ccn.data.ragged import Ragged, ranges
from lightning_ccn.data.writer import DatasetWriter
from lightning_ccn.errors import DataError

PAGES_PER_WRITE = 4096  # bounds the memory of the behaviours that are written at once

# (begin, end) -> behaviours of pages begin .. end - 1: item ids [sum], times int64 [sum], lengths int64 [pages];
# oldest first.
Behaviours = Callable[[int, int], tuple[pa.Array, np.ndarray, np.ndarray]]


@dataclass
class ConversionReport:
    """How much a conversion read, dropped and kept, and why; read = dropped + kept for each kind.

    Attributes:
        options: Options of the conversion.
        trigger: What the log's trigger is worth; empty if its specification says what it is.
        counts: Counts by kind (impressions, pages, items, clicks), then by outcome (read, dropped, kept, noted), then
            by reason. Noted things are among the kept ones.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    trigger: str = ""
    counts: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)

    def add(self, kind: str, outcome: str, reason: str, count: int) -> None:
        """Adds to a count."""
        reasons = self.counts.setdefault(kind, {}).setdefault(outcome, {})
        reasons[reason] = reasons.get(reason, 0) + int(count)

    def losses(self, kind: str) -> str:
        """A phrase that says how many of a kind were dropped, and why."""
        dropped = [f"{count} ({reason})" for reason, count in self.counts[kind]["dropped"].items() if count]
        return f"of {self.counts[kind]['read']['total']} {kind} dropped: {', '.join(dropped) or 'none'}"

    def to_json(self) -> str:
        """Options, trigger and counts, as stored in report.json."""
        plain = {"options": self.options, "trigger": self.trigger, **self.counts}
        return json.dumps(plain, indent=2, default=str) + "\n"

    def __str__(self) -> str:
        lines = []
        for kind, outcomes in self.counts.items():
            heading = kind
            for outcome in ("read", "dropped", "kept", "noted"):
                for reason, count in outcomes.get(outcome, {}).items():
                    lines.append(f"{heading:<12}{outcome:<9}{reason:<52}{count:>13,}")
                    heading = ""
        lines += [f"trigger: {self.trigger}"] if self.trigger else []
        return "\n".join(lines)


@dataclass(frozen=True)
class Cuts:
    """The times that separate the splits: train < `validation` <= validation < `test` <= test; int seconds."""

    validation: int
    test: int

    @staticmethod
    def at(times: np.ndarray, validation: float, test: float, test_from: int | None = None) -> Cuts:
        """Cuts that give these shares of the pages to validation and test; test gets the latest pages.

        Args:
            times: Int64 [pages], in any order.
            validation: Share of the pages; with `test_from`, share of the pages before it.
            test: Share of the pages; ignored when `test_from` is given.
            test_from: Time at which the test split begins.
        """
        if test_from is not None:
            times, test = times[times < test_from], 0.0
        times = np.sort(times)
        latest = len(times) - round(len(times) * test)
        before = latest - round(len(times) * validation)
        end = int(times[-1]) + 1 if len(times) else 0
        start = [int(times[place]) if place < len(times) else end for place in (before, latest)]
        return Cuts(start[0], start[1] if test_from is None else test_from)

    def split(self, times: np.ndarray) -> np.ndarray:
        """The split of each time, as an index into SPLITS."""
        return np.searchsorted([self.validation, self.test], times, side="right")


@dataclass(frozen=True)
class Pages:
    """Page views with a log's original ids, in order of time, and their exposed items.

    An impression is a row of the log: a list of items shown together. A page may merge several impressions.

    Attributes:
        page_id: Int64 [pages].
        time: Int64 [pages], time of the page's first impression in seconds.
        last: Int64 [pages], time of the page's last impression in seconds.
        impressions: Int64 [pages], number of impressions that the page merges.
        owner: Int64 [pages], the converter's number for the user whose behaviours precede the page.
        trigger: Item ids [pages], null for a page without a trigger.
        profile: Ids of the user features; one column per feature, one row per page.
        page: Int64 [exposures], index into the pages, ascending.
        item: Item ids [exposures].
        clicks: Int8 [exposures], 0 or 1.
    """

    page_id: np.ndarray
    time: np.ndarray
    last: np.ndarray
    impressions: np.ndarray
    owner: np.ndarray
    trigger: pa.Array
    profile: pa.Table
    page: np.ndarray
    item: pa.Array
    clicks: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Int64 [pages], number of exposed items of each page."""
        return np.bincount(self.page, minlength=len(self.time))

    def without_trigger(self, report: ConversionReport) -> Pages:
        """The pages without the exposures of their own trigger."""
        trigger = self.trigger.take(pa.array(self.page))
        out = pc.fill_null(pc.equal(self.item, trigger), False).to_numpy(zero_copy_only=False)
        report.add("items", "dropped", "the trigger itself", out.sum())
        report.add("clicks", "dropped", "on the trigger itself", self.clicks[out].sum())
        return self._replace(np.ones(len(self.time), dtype=bool), ~out)

    def drop(self, gone: np.ndarray, reason: str, report: ConversionReport) -> Pages:
        """The pages where `gone`, bool [pages], is false; counts the others in the report under `reason`."""
        out = gone[self.page]
        report.add("impressions", "dropped", reason, self.impressions[gone].sum())
        report.add("pages", "dropped", reason, gone.sum())
        report.add("items", "dropped", reason, out.sum())
        report.add("clicks", "dropped", reason, self.clicks[out].sum())
        return self._replace(~gone, ~out)

    def _replace(self, kept: np.ndarray, exposed: np.ndarray) -> Pages:
        return Pages(
            page_id=self.page_id[kept],
            time=self.time[kept],
            last=self.last[kept],
            impressions=self.impressions[kept],
            owner=self.owner[kept],
            trigger=self.trigger.filter(pa.array(kept)),
            profile=self.profile.filter(pa.array(kept)),
            page=(np.cumsum(kept) - 1)[self.page[exposed]],
            item=self.item.filter(pa.array(exposed)),
            clicks=self.clicks[exposed],
        )


def merge_exposures(
    page: np.ndarray, item: np.ndarray, clicked_page: np.ndarray, clicked_item: np.ndarray, report: ConversionReport
) -> tuple[np.ndarray, np.ndarray]:
    """Keeps each item once per page, in the order of its first exposure; clicked if any of its exposures was.

    Args:
        page: Int64 [n], page of each exposure, ascending.
        item: Int64 [n], number of each exposed item.
        clicked_page: Int64 [m], page of each click.
        clicked_item: Int64 [m], number of each clicked item.
        report: Counts what was read and dropped.

    Returns:
        Int64 [k], which of the n exposures are kept, ascending; int8 [k], their clicks.
    """
    codes, code = np.unique(np.concatenate([item, clicked_item]), return_inverse=True)
    key = np.concatenate([page, clicked_page]) * len(codes) + code
    shown, first = np.unique(key[: len(page)], return_index=True)
    first.sort()
    clicked = np.unique(key[len(page) :])
    clicks = np.isin(key[first], clicked).astype(np.int8)
    report.add("items", "read", "total", len(page))
    report.add("items", "dropped", "in view again on the same page", len(page) - len(first))
    report.add("clicks", "read", "total", len(clicked_page))
    report.add("clicks", "dropped", "on the same item of the page again", len(clicked_page) - len(clicked))
    report.add("clicks", "dropped", "on an item that was not in view", len(clicked) - np.isin(clicked, shown).sum())
    return first, clicks


def write_pages(
    writer: DatasetWriter,
    encoder: Encoder,
    pages: Pages,
    behaviours: Behaviours,
    ages: ItemTimes,
    cuts: Cuts,
    short: int,
    report: ConversionReport,
) -> None:
    """Encodes pages and writes each one to the split of its time.

    Args:
        writer: Writer of the dataset.
        encoder: Maps ids to rows; new ids of the written pages are added.
        pages: The pages, in order of time.
        behaviours: Gives the behaviours of a range of pages.
        ages: Gives the ages of items.
        cuts: Times that separate the splits.
        short: Length of the short sequence, which is the end of the long one.
        report: Counts what was kept.
    """
    offsets = np.concatenate([[0], np.cumsum(pages.lengths)])
    bounds = np.searchsorted(cuts.split(pages.time), np.arange(len(SPLITS) + 1))
    for split, start, stop in zip(SPLITS, bounds[:-1], bounds[1:], strict=True):
        report.add("pages", "kept", split, stop - start)
        for begin in range(start, stop, PAGES_PER_WRITE):
            end = min(begin + PAGES_PER_WRITE, stop)
            exposed = slice(offsets[begin], offsets[end])
            time = pages.time[begin:end]
            item = pages.item[exposed]
            lengths = np.diff(offsets[begin : end + 1])
            long_items, long_times, long_lengths = behaviours(begin, end)
            long = Ragged.from_lengths(encoder.rows(ITEM, long_items), long_lengths)
            kept = np.minimum(long_lengths, short)
            recent = ranges(long.offsets[1:] - kept, kept)
            columns: dict[str, np.ndarray | Ragged] = {
                page_row.PAGE_ID: pages.page_id[begin:end],
                page_row.TIME: time,
                page_row.TRIGGER: encoder.rows(ITEM, pages.trigger[begin:end]),
                page_row.ITEMS: Ragged.from_lengths(encoder.rows(ITEM, item), lengths),
                page_row.CLICKS: Ragged.from_lengths(pages.clicks[exposed], lengths),
                ITEM_AGE: Ragged.from_lengths(ages.ages(item, np.repeat(time, lengths)), lengths),
                page_row.SHORT_ITEMS: Ragged.from_lengths(long.values[recent], kept),
                page_row.SHORT_TIMES: Ragged.from_lengths(long_times[recent], kept),
                page_row.LONG_ITEMS: long,
                page_row.LONG_TIMES: Ragged(long_times, long.offsets),
            }
            for name in pages.profile.column_names:
                columns[name] = encoder.rows(name, pages.profile[name][begin:end].combine_chunks())
            writer.write(split, columns)
            report.add("pages", "noted", "without a behaviour before them", (long_lengths == 0).sum())
    clicks = np.bincount(pages.page, pages.clicks, minlength=len(pages.time))
    report.add("pages", "noted", "without a click", (clicks == 0).sum())
    report.add("pages", "noted", "with several clicks", (clicks > 1).sum())
    report.add("impressions", "kept", "total", pages.impressions.sum())
    report.add("items", "kept", "total", len(pages.item))
    report.add("clicks", "kept", "total", pages.clicks.sum())


def find_logs(source: Path, later: str, files: Sequence[str]) -> list[Path]:
    """The folders with a log: `source` itself, or its subfolder train/ and, if it exists, its subfolder `later`.

    Raises:
        DataError: One of the `files` of a log is missing.
    """
    logs = [source] if (source / files[0]).is_file() else [source / "train"]
    if logs != [source] and (source / later).is_dir():
        logs.append(source / later)
    for path in (log / name for log in logs for name in files):
        if not path.is_file():
            raise DataError(
                f"{path}: no such file; give the folder of the unpacked archive, with train/{files[0]} and "
                f"train/{files[1]}, or a folder with these two files itself"
            )
    return logs


def check_options(validation: float, test: float, short: int, long: int) -> None:
    """Checks the shares of the splits and the lengths of the sequences.

    Raises:
        DataError: They are out of range.
    """
    if not (validation >= 0 and test >= 0 and validation + test < 1):
        raise DataError(
            f"validation is {validation} and test {test}: they are shares of the pages, 0 or more, with a sum below 1"
        )
    if not 0 <= short <= long:
        raise DataError(f"short is {short} and long {long}: the short sequence is the end of the long one")
