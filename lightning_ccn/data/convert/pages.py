"""Page views on their way from a log into a dataset folder: exposures merged, splits cut, everything counted."""

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
from lightning_ccn.data.convert.encoder import ITEM_AGE, Encoder, ItemTimes
from lightning_ccn.data.dataset import SPLITS
from lightning_ccn.data.page_row import ITEM
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.writer import DatasetWriter
from lightning_ccn.errors import DataError

PAGES_PER_WRITE = 4096  # bounds what behaviours take in memory while they are written

# Behaviours of the pages begin .. end - 1: item ids [sum], times int64 [sum], lengths int64 [pages]; oldest first.
Behaviours = Callable[[int, int], tuple[pa.Array, np.ndarray, np.ndarray]]


@dataclass
class ConversionReport:
    """What a conversion read, dropped and kept, and why. Of each kind of thing, read = dropped + kept.

    Attributes:
        options: of the conversion.
        counts: by kind (impressions, pages, items, clicks), then fate (read, dropped, kept, noted), then reason.
            What is noted is kept.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    counts: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)

    def add(self, kind: str, fate: str, reason: str, count: int) -> None:
        """Adds to a count."""
        reasons = self.counts.setdefault(kind, {}).setdefault(fate, {})
        reasons[reason] = reasons.get(reason, 0) + int(count)

    def losses(self, kind: str) -> str:
        """What of a kind was dropped, in words."""
        dropped = [f"{count} ({reason})" for reason, count in self.counts[kind]["dropped"].items() if count]
        return f"of {self.counts[kind]['read']['total']} {kind} dropped: {', '.join(dropped) or 'none'}"

    def to_json(self) -> str:
        """Options and counts, as report.json holds them."""
        return json.dumps({"options": self.options, **self.counts}, indent=2, default=str) + "\n"

    def __str__(self) -> str:
        lines = []
        for kind, fates in self.counts.items():
            heading = kind
            for fate in ("read", "dropped", "kept", "noted"):
                for reason, count in fates.get(fate, {}).items():
                    lines.append(f"{heading:<12}{fate:<9}{reason:<52}{count:>13,}")
                    heading = ""
        return "\n".join(lines)


@dataclass(frozen=True)
class Cuts:
    """Where time is cut: train before `validation`, validation before `test`, test from there on; int seconds."""

    validation: int
    test: int

    @staticmethod
    def at(times: np.ndarray, validation: float, test: float, test_from: int | None = None) -> Cuts:
        """Cuts that give validation and test these shares of the pages, the latest pages to test.

        Args:
            times: int64 [pages], in any order.
            validation: share of the pages; with `test_from`, of those before it.
            test: share of the pages; without effect when `test_from` is given.
            test_from: where the test split begins.
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
        """The split of each time, an index into SPLITS."""
        return np.searchsorted([self.validation, self.test], times, side="right")


@dataclass(frozen=True)
class Pages:
    """Page views with a log's own ids, in order of time, and their exposures, page by page.

    Attributes:
        page_id: int64 [pages].
        time: int64 [pages], seconds, the first impression's.
        last: int64 [pages], the last impression's.
        impressions: int64 [pages], how many impressions make up the page.
        owner: int64 [pages], whose behaviours precede the page: a number of the converter's own.
        trigger: item ids [pages], null for none.
        profile: the user features' ids, one column a feature, one row a page.
        page: int64 [exposures], index into the pages, ascending.
        item: item ids [exposures].
        click: int8 [exposures].
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
    click: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """int64 [pages], exposures of each page."""
        return np.bincount(self.page, minlength=len(self.time))

    def without_trigger(self, report: ConversionReport) -> Pages:
        """The pages with the trigger taken out of their exposures."""
        trigger = self.trigger.take(pa.array(self.page))
        out = pc.fill_null(pc.equal(self.item, trigger), False).to_numpy(zero_copy_only=False)
        report.add("items", "dropped", "the trigger itself", out.sum())
        report.add("clicks", "dropped", "on the trigger itself", self.click[out].sum())
        return self._replace(np.ones(len(self.time), dtype=bool), ~out)

    def drop(self, gone: np.ndarray, reason: str, report: ConversionReport) -> Pages:
        """The pages without those where `gone`, bool [pages], is true; the reason goes to the report."""
        out = gone[self.page]
        report.add("impressions", "dropped", reason, self.impressions[gone].sum())
        report.add("pages", "dropped", reason, gone.sum())
        report.add("items", "dropped", reason, out.sum())
        report.add("clicks", "dropped", reason, self.click[out].sum())
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
            click=self.click[exposed],
        )


def merge_exposures(
    page: np.ndarray, item: np.ndarray, clicked_page: np.ndarray, clicked_item: np.ndarray, report: ConversionReport
) -> tuple[np.ndarray, np.ndarray]:
    """Each item once a page, in the order of first exposure; clicked if any of its exposures was.

    Args:
        page: int64 [n], ascending: the page of each exposure.
        item: int64 [n], what was in view.
        clicked_page: int64 [m], the page of each click.
        clicked_item: int64 [m], what was clicked.
        report: gets what was read and merged.

    Returns:
        int64 [k], which of the n exposures stay, ascending; int8 [k], their clicks.
    """
    codes, code = np.unique(np.concatenate([item, clicked_item]), return_inverse=True)
    key = np.concatenate([page, clicked_page]) * len(codes) + code
    shown, first = np.unique(key[: len(page)], return_index=True)
    first.sort()
    clicked = np.unique(key[len(page) :])
    click = np.isin(key[first], clicked).astype(np.int8)
    report.add("items", "read", "total", len(page))
    report.add("items", "dropped", "in view again on the same page", len(page) - len(first))
    report.add("clicks", "read", "total", len(clicked_page))
    report.add("clicks", "dropped", "on the same item of the page again", len(clicked_page) - len(clicked))
    report.add("clicks", "dropped", "on an item that was not in view", len(clicked) - np.isin(clicked, shown).sum())
    return first, click


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
    """Encodes pages and writes each to the split of its time.

    Args:
        writer: of the dataset.
        encoder: enters new ids; only those of written pages.
        pages: in order of time.
        behaviours: of a range of pages.
        ages: of items.
        cuts: between the splits.
        short: the last so many behaviours are the short sequence.
        report: gets what was kept.
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
                page_row.CLICKS: Ragged.from_lengths(pages.click[exposed], lengths),
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
    clicks = np.bincount(pages.page, pages.click, minlength=len(pages.time))
    report.add("pages", "noted", "without a click", (clicks == 0).sum())
    report.add("pages", "noted", "with several clicks", (clicks > 1).sum())
    report.add("impressions", "kept", "total", pages.impressions.sum())
    report.add("items", "kept", "total", len(pages.item))
    report.add("clicks", "kept", "total", pages.click.sum())


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Indices of stretches one after another.

    >>> ranges(np.array([5, 0]), np.array([2, 3]))
    array([5, 6, 0, 1, 2])
    """
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)


def find_logs(source: Path, later: str, files: Sequence[str]) -> list[Path]:
    """The folders that hold a log: `source` itself, or its train/ and, where there is one, its folder `later`.

    Raises:
        DataError: one of the `files` of a log is missing.
    """
    logs = [source] if (source / files[0]).is_file() else [source / "train"]
    if logs != [source] and (source / later).is_dir():
        logs.append(source / later)
    for path in (log / name for log in logs for name in files):
        if not path.is_file():
            raise DataError(
                f"{path}: no such file; name the folder of the unpacked archive, with train/{files[0]} and "
                f"train/{files[1]}, or one that holds these two itself"
            )
    return logs


def check_options(validation: float, test: float, short: int, long: int) -> None:
    """Refuses shares and lengths that cannot be; raises DataError."""
    if not (validation >= 0 and test >= 0 and validation + test < 1):
        raise DataError(
            f"validation is {validation} and test {test}: shares of the pages, 0 or more, that leave some to train"
        )
    if not 0 <= short <= long:
        raise DataError(f"short is {short} and long {long}: the short sequence is the end of the long one")
