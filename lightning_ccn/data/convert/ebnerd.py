"""Converts EB-NeRD, the click log of the Ekstra Bladet news site (RecSys Challenge 2024).

The official layout is `train/` and `validation/`, each with `behaviors.parquet` (one row per impression: a list of
articles shown) and `history.parquet` (one row per user: articles read in the three weeks before), and one
`articles.parquet`. An impression on an article's page has that article as `article_id`, the trigger. On the front
page it is null.

The impressions of one page view may be anywhere in the log. So all impressions are first distributed by user over
temporary files next to the dataset, each of which fits in memory. Memory: one such file, the vocabularies, the first
time of each article, the catalogue's categories and 8 bytes per page view.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lightning_ccn.data.convert.ebnerd_files import (
    ATTRIBUTES,
    FILES,
    PROFILE,
    first_time,
    read_articles,
    read_histories,
    read_impressions,
    shared_columns,
    spread_by_user,
)
from lightning_ccn.data.convert.encoder import Encoder
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
from lightning_ccn.data.convert.source_columns import lists
from lightning_ccn.data.ragged import ranges
from lightning_ccn.data.writer import DatasetWriter
from lightning_ccn.errors import DataError

TRIGGER = "a true one: the article whose page the user had opened; an impression of the front page has none"
IMPRESSIONS_PER_SPILL = 250_000  # a few hundred megabytes, including the users' histories


def convert_ebnerd(
    source: str | Path,
    folder: str | Path,
    *,
    pages: Literal["session_trigger", "impression"] = "session_trigger",
    drop_trigger: bool = True,
    front_page: bool = False,
    split: Literal["time", "official"] = "time",
    validation: float = 0.1,
    test: float = 0.2,
    short: int = 20,
    long: int = 300,
    log_clicks: bool = False,
    hash_users: int = 0,
    cut_long_length: int | None = None,
    extends: str | Path | None = None,
) -> ConversionReport:
    """Writes a dataset folder from EB-NeRD logs.

    A page view is everything that a user was shown under one trigger (the article whose page the user opened) in one
    session. Its items are the union of the impressions' lists, an item is clicked if it was clicked in any of them, and
    its time is that of the first impression. The splits are time ranges. A page view that crosses a split's boundary is
    dropped, so every impression of a split is earlier than the first page view of the next split.

    Behaviours come from `history.parquet`, which ends before the log begins. Only those before the page's time are
    used, so they cannot reveal a click. The per-item number `item_age` is ln(1 + hours) since the article was
    published or, without `articles.parquet`, since it first appeared in the log or a history.

    Args:
        source: Folder with `train/`, or with `behaviors.parquet` and `history.parquet` themselves.
            `articles.parquet` is read from this folder or its parent; without it, items have no category.
        folder: Dataset folder to write.
        pages: What makes a page view: all impressions of a user's session under one trigger, or a single impression.
        drop_trigger: Remove the trigger from the items of its own page. It is often among them and hardly ever
            clicked, so a model that sees the trigger could score well by this alone.
        front_page: Keep impressions of the front page; they have no trigger, and those of one session are one page.
        split: `time` splits all page views by `validation` and `test`; `official` starts the test split at
            the first impression of `validation/`.
        validation: Share of the page views for validation; with `official`, share of those before the test split.
        test: Share of the page views for the test, the latest ones; ignored with `official`.
        short: Length of the short behaviour sequence, which is the end of the long one.
        long: How many of the most recent behaviours are kept per page view.
        log_clicks: Add the clicks of earlier impressions to the behaviours, as when serving with a live history. The
            time of a click is the impression's time plus its read time. Off by default, because published results use
            the fixed histories.
        hash_users: Number of rows of a hashed user table; 0 gives every user a row in a vocabulary.
        cut_long_length: Cut the long sequences to what a search for this many or fewer behaviours of each category of a
            page can ask for, as `ccn data cut` does, but without a second folder.
        extends: Older dataset folder to extend: its ids keep their rows, and the new dataset has its features.

    Returns:
        Counts of what was read, dropped and kept; they are also written to report.json in the folder.

    Raises:
        DataError: A file is missing, truncated or of another layout, an option is out of range, or no page view
            is left to train on.
    """
    options = dict(locals())
    check_options(validation, test, short, long)
    source = Path(source)
    logs = find_logs(source, "validation", FILES)
    if split == "official" and len(logs) == 1:
        raise DataError(f"{source}: has no validation/ folder, which split=official needs; use split=time")
    encoder = Encoder(extends, {"user": hash_users})
    found = shared_columns(logs, PROFILE)
    profile = encoder.features("user", ["user", *found], ("user", *PROFILE))
    catalogue, ages = read_articles(source)
    in_catalogue = [name for name in ATTRIBUTES if name in catalogue.column_names]
    attributes = encoder.features("attributes", in_catalogue, ATTRIBUTES)
    report = ConversionReport(options, TRIGGER)

    def load(spill: str, number: int, counts: ConversionReport) -> tuple[pa.Table, Pages]:
        impressions = _distinct(pq.read_table(f"{spill}/impressions-{number}.parquet"), counts)
        return impressions, _pages(impressions, profile, pages == "impression", front_page, drop_trigger, counts)

    with (
        DatasetWriter(folder, encoder.schema(profile, attributes, cut_long_length)) as writer,
        TemporaryDirectory(dir=writer.part.parent, prefix=f"{writer.part.name}.") as spill,
    ):
        spills = 1 + sum(pq.read_metadata(log / "behaviors.parquet").num_rows for log in logs) // IMPRESSIONS_PER_SPILL
        first_seen = ages if ages.empty else None
        spread_by_user(read_impressions(logs, found, log_clicks, first_seen), f"{spill}/impressions", spills)
        spread_by_user(read_histories(logs, first_seen), f"{spill}/history", spills)
        times = np.concatenate([load(spill, number, ConversionReport())[1].time for number in range(spills)])
        cuts = Cuts.at(times, validation, test, first_time(logs[1]) if split == "official" else None)
        for number in range(spills):
            impressions, loaded = load(spill, number, report)
            crossing = cuts.split(loaded.time) != cuts.split(loaded.last)
            loaded = loaded.drop(crossing, "page view crosses the boundary of a split", report)
            history = pq.read_table(f"{spill}/history-{number}.parquet")
            behaviours = _behaviours(history, impressions, loaded, long, log_clicks)
            write_pages(writer, encoder, loaded, behaviours, ages, cuts, short, report)
        if not writer.stats["train"].pages:
            raise DataError(f"{source}: no page view is left to train on; {report.losses('impressions')}")
        columns, missing = encoder.attributes(attributes, catalogue)
        if catalogue.num_rows:
            report.add("articles", "noted", "on pages or in behaviours, not in articles.parquet", missing)
        schema = encoder.schema(profile, attributes, cut_long_length)
        writer.close(columns, encoder.vocabularies, schema, {"report.json": report.to_json()})
    return report


def _distinct(impressions: pa.Table, report: ConversionReport) -> pa.Table:
    """Removes repeated impressions; the first one in the order of the logs stays."""
    _, first = np.unique(impressions["impression_id"].to_numpy(), return_index=True)
    report.add("impressions", "read", "total", len(impressions))
    report.add("impressions", "dropped", "impression_id read before", len(impressions) - len(first))
    return impressions.take(pa.array(np.sort(first)))


def _pages(
    impressions: pa.Table,
    profile: Sequence[str],
    single: bool,
    front_page: bool,
    drop_trigger: bool,
    report: ConversionReport,
) -> Pages:
    """Groups impressions to page views by (log, user, session, trigger); with `single`, makes each one a page view."""
    if not front_page:
        at_front = pc.is_null(impressions["article_id"])
        report.add("impressions", "dropped", "front page: no trigger", pc.sum(at_front).as_py() or 0)
        impressions = impressions.filter(pc.invert(at_front))
    group = "impression_id" if single else "session_id"
    key = np.stack(
        [
            impressions["log"].to_numpy(),
            impressions["user_id"].to_numpy(),
            impressions[group].to_numpy(),
            pc.fill_null(impressions["article_id"], -1).to_numpy(),
        ]
    )
    time, number = impressions["impression_time"].to_numpy(), impressions["impression_id"].to_numpy()
    order = np.lexsort([number, time, *key[::-1]])
    key, time = key[:, order], time[order]
    new = np.concatenate([[True], (key[:, 1:] != key[:, :-1]).any(axis=0)])[: len(order)]
    page = np.argsort(np.argsort(time[new], kind="stable"))[np.cumsum(new) - 1]  # numbered in order of time
    order, page = order[np.argsort(page, kind="stable")], np.sort(page)
    impressions = impressions.take(pa.array(order)).combine_chunks()
    starts = np.flatnonzero(np.diff(page, prepend=-1))
    time = impressions["impression_time"].to_numpy()
    report.add("pages", "read", "total", len(starts))

    shown, items = lists(impressions["article_ids_inview"])
    picked, clicked = lists(impressions["article_ids_clicked"])
    exposed_on = np.repeat(page, shown)
    kept, clicks = merge_exposures(exposed_on, items.to_numpy(), np.repeat(page, picked), clicked.to_numpy(), report)
    ends = np.append(starts[1:], len(page))[: len(starts)]
    first = impressions.take(pa.array(starts)).combine_chunks()
    # a feature of the older dataset that this log does not have is unknown on all pages
    known = {"user": "user_id"} | {name: name for name in first.column_names}
    unknown = pa.nulls(len(first), pa.int64())
    loaded = Pages(
        page_id=first["impression_id"].to_numpy(),
        time=time[starts],
        last=time[ends - 1],
        impressions=ends - starts,
        owner=_owner(first),
        trigger=first["article_id"].combine_chunks(),
        profile=pa.table({name: first[known[name]] if name in known else unknown for name in profile}),
        page=exposed_on[kept],
        item=items.take(pa.array(kept)),
        clicks=clicks,
    )
    if drop_trigger:
        loaded = loaded.without_trigger(report)
    return loaded.drop(loaded.lengths == 0, "no item on the page view", report)


def _owner(rows: pa.Table) -> np.ndarray:
    """A number per (user, log), int64 [rows]: a history belongs to the log in the same folder."""
    return 2 * rows["user_id"].to_numpy() + rows["log"].to_numpy()


def _behaviours(history: pa.Table, impressions: pa.Table, pages: Pages, long: int, log_clicks: bool) -> Behaviours:
    """The most recent behaviours before each page's time, at most `long`."""
    lengths, item = lists(history["article_id_fixed"])
    time = lists(history["impression_time_fixed"])[1].to_numpy()
    owner = np.repeat(_owner(history), lengths)
    if log_clicks:
        known = impressions.filter(pc.is_valid(impressions["read_time"]))
        picked, clicked = lists(known["article_ids_clicked"])
        left = known["impression_time"].to_numpy() + np.ceil(known["read_time"].to_numpy()).astype(np.int64)
        item = pa.concat_arrays([item, clicked])
        time = np.concatenate([time, np.repeat(left, picked)])
        owner = np.concatenate([owner, np.repeat(_owner(known), picked)])
    # Sorted by (owner, time) as one key, a page's behaviours are the range from its owner's start to its time.
    owners = np.unique(np.concatenate([owner, pages.owner]))
    key = (np.searchsorted(owners, owner) << 33) + time
    order = np.argsort(key, kind="stable")
    key, time, item = key[order], time[order], item.take(pa.array(order))
    base = np.searchsorted(owners, pages.owner) << 33
    end = np.searchsorted(key, base + pages.time)
    start = np.maximum(np.searchsorted(key, base), end - long)

    def of(first: int, last: int) -> tuple[pa.Array, np.ndarray, np.ndarray]:
        count = (end - start)[first:last]
        at = ranges(start[first:last], count)
        return item.take(pa.array(at)), time[at], count

    return of
