"""Signs that a page row tells its own clicks: what a model must not see makes it look better than it can be.

The likeliest leak is a sequence of behaviours that ends after the page was shown: it holds the page's own clicks. Its
times need not give it away, as times may be of the minute or of the day. So clicked items are looked for among the
behaviours, and compared with the unclicked items of the same pages: users who come back to items make both likelier.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from lightning_ccn.data import page_row
from lightning_ccn.data.dataset import SPLITS
from lightning_ccn.data.parquet import PageRows
from lightning_ccn.data.places import Place
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.schema import Schema

LAST = 60  # seconds before a page: a click that a user made then, on this page, is often logged so
# Where items are looked for; the smallest share of clicked items there that is beyond belief, if its odds are this many
# times those of unclicked items. Many users do come back to items of their history, and to the trigger.
PLACES = {
    "behaviours of the last minute": (0.02, 5.0),
    "all behaviours": (0.3, 10.0),
    "the trigger": (0.3, 10.0),
}
FEWEST = 10  # found items or pages that are enough for a warning
MOST_AT_PAGE_TIME, MOST_TWICE = 0.05, 0.3  # shares of pages beyond belief


@dataclass
class _Counts:
    """Counts of one split; the second axis is unclicked, clicked."""

    items: np.ndarray = field(default_factory=lambda: np.zeros((len(PLACES), 2), dtype=np.int64))
    found: np.ndarray = field(default_factory=lambda: np.zeros((len(PLACES), 2), dtype=np.int64))
    pages: int = 0
    at_page_time: int = 0  # pages with a behaviour at their very second, the trigger aside
    twice: int = 0  # pages that show an item twice
    one_twice: str = ""  # the first of them


class Leaks:
    """Looks for a page's clicked items in what a model sees of the page. Memory: counts, and one row group."""

    def __init__(self, schema: Schema) -> None:
        self._rows = schema.tables[page_row.ITEM].rows
        self._splits: dict[str, _Counts] = {}

    def add(self, split: str, path: Place, first: int, rows: PageRows) -> None:
        """Adds the page rows of one row group; columns with errors are left out of `rows`."""
        exposed, trigger, time = (rows.get(name) for name in (page_row.ITEMS, page_row.TRIGGER, page_row.TIME))
        if not (isinstance(exposed, Ragged) and isinstance(trigger, np.ndarray) and isinstance(time, np.ndarray)):
            return
        counts = self._splits.setdefault(split, _Counts())
        page = np.repeat(np.arange(len(time)), exposed.lengths)
        key = page * self._rows + exposed.values  # [items], an item of a page
        counts.pages += len(time)
        once, often = np.unique(key, return_counts=True)
        again = once[(often > 1) & (once % self._rows != 0)]
        counts.twice += len(np.unique(again // self._rows))
        if len(again) and not counts.one_twice:
            row, item = divmod(int(again[0]), self._rows)
            counts.one_twice = f"item {item} in {path}: row {first + row}"

        behaviours, ago = self._behaviours(rows, time)
        of_trigger = behaviours == (behaviours // self._rows) * self._rows + trigger[behaviours // self._rows]
        counts.at_page_time += len(np.unique(behaviours[(ago == 0) & ~of_trigger] // self._rows))
        clicks = rows.get(page_row.CLICKS)
        if not isinstance(clicks, Ragged):
            return
        is_trigger = exposed.values == trigger[page]
        found = (np.isin(key, behaviours[ago <= LAST]), np.isin(key, behaviours), is_trigger)
        # the trigger is a behaviour just before the page by its nature, and tells nothing of the page's clicks
        counted = (~is_trigger, ~is_trigger, np.ones_like(is_trigger))
        for place, (there, count) in enumerate(zip(found, counted, strict=True)):
            for clicked in (0, 1):
                of_kind = count & (exposed.values != 0) & (clicks.values == clicked)
                counts.items[place, clicked] += np.count_nonzero(of_kind)
                counts.found[place, clicked] += np.count_nonzero(of_kind & there)

    def figures(self) -> Iterator[str]:
        """The lines of the report."""
        if not self._splits:
            return
        yield f"{'clicked (unclicked) items that are in':<36}" + "".join(f"{split:>18}" for split in SPLITS)
        for place, name in enumerate(PLACES):
            yield f"  {name:<34}" + "".join(f"{self._both(split, place):>18}" for split in SPLITS)
        yield "pages"
        for name, text in (("at_page_time", "with a behaviour at their second"), ("twice", "that show an item twice")):
            shares = (f"{getattr(c, name) / c.pages:.1%}" if (c := self._splits.get(s)) else "-" for s in SPLITS)
            yield f"  {text:<34}" + "".join(f"{share:>18}" for share in shares)

    def warnings(self, folder: Place) -> Iterator[str]:
        """One line per figure that is beyond belief."""
        for split, counts in self._splits.items():
            at, told = folder / split, False  # what is among the last behaviours is among all of them
            for place, (name, (least, times)) in enumerate(PLACES.items()):
                unclicked, clicked = counts.found[place] / np.maximum(counts.items[place], 1)
                beyond_belief = clicked >= least and clicked * (1 - unclicked) > times * unclicked * (1 - clicked)
                if counts.found[place, 1] >= FEWEST and beyond_belief and not (place == 1 and told):
                    told = True
                    yield (
                        f"{at}: {clicked:.1%} of the clicked but {unclicked:.1%} of the unclicked items are in {name}, "
                        f"so the page may tell its own clicks; {REMEDIES[place]}"
                    )
            if counts.at_page_time >= FEWEST and counts.at_page_time > MOST_AT_PAGE_TIME * counts.pages:
                yield (
                    f"{at}: {counts.at_page_time / counts.pages:.1%} of the pages have a behaviour at their very "
                    f"second that is not the trigger, which may be a click on the page itself; {REMEDIES[0]}"
                )
            if counts.twice >= FEWEST and counts.twice > MOST_TWICE * counts.pages:
                yield (
                    f"{at}: {counts.twice / counts.pages:.1%} of the pages show an item twice, such as "
                    f"{counts.one_twice}; write one entry per item and page, clicked if any of them was"
                )

    def _behaviours(self, rows: PageRows, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The known items of both sequences as keys like those of the exposed items, and how long ago; [behaviours]."""
        keys, ago = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        for of_items, of_times in (
            (page_row.SHORT_ITEMS, page_row.SHORT_TIMES),
            (page_row.LONG_ITEMS, page_row.LONG_TIMES),
        ):
            items, times = rows.get(of_items), rows.get(of_times)
            if isinstance(items, Ragged) and isinstance(times, Ragged):
                page, known = np.repeat(np.arange(len(time)), items.lengths), items.values != 0
                keys.append((page * self._rows + items.values)[known])
                ago.append((time[page].astype(np.int64) - times.values)[known])
        return np.concatenate(keys), np.concatenate(ago)

    def _both(self, split: str, place: int) -> str:
        if split not in self._splits or not (items := self._splits[split].items[place])[1]:
            return "-"
        unclicked, clicked = self._splits[split].found[place] / np.maximum(items, 1)
        return f"{clicked:.1%} ({unclicked:.1%})"


REMEDIES = (
    "end the sequences before the page is shown, and write their times to the second",
    "end the sequences before the page is shown, and write their times to the second",
    "the trigger is the click by which the user entered the page, not one on it",
)
