"""Made-up page views of an exact shape: as a dataset folder, as one with each item on a page of its own, as arrays.

Only the shape matters for speed, so ids are drawn evenly and clicks at random. Even draws are the worst case for a
lookup per distinct item: real traffic is skewed, so a batch has fewer distinct items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightning_ccn.data import page_row
from lightning_ccn.data.page_row import ITEM
from lightning_ccn.data.ragged import Ragged, ranges, take
from lightning_ccn.data.schema import Feature, Schema, Table
from lightning_ccn.data.writer import DatasetWriter

Rows = Mapping[str, np.ndarray | Ragged]

CLICK_RATE, FIRST_DAY, DAY = 0.15, 1_700_000_000, 86_400
CHUNK = 512  # pages that are made at once
OTHERS = 10  # pages of the splits that are not trained on


@dataclass(frozen=True)
class Shape:
    """The shape of page views, the same for each page.

    Attributes:
        pages: Number of training pages.
        items: Exposed items of a page.
        short: Length of the short sequence.
        long: Length of the long sequence, which ends with the short one, as in the synthetic world.
        users: Number of users.
        catalogue: Number of items in the catalogue.
        categories: Number of categories. A page's long sequence has equally many behaviours of each, so the hard search
            finds long / categories behaviours for each target and trigger.
        sellers: Number of sellers, the third item feature.
    """

    pages: int
    items: int = 10
    short: int = 50
    long: int = 200
    users: int = 50_000
    catalogue: int = 100_000
    categories: int = 4
    sellers: int = 10_000

    @property
    def found(self) -> int:
        """Long behaviours that the hard search finds for each target."""
        return self.long // self.categories

    @property
    def schema(self) -> Schema:
        """A user id, and three features of each item."""
        rows = {"user": self.users, ITEM: self.catalogue, "category": self.categories, "seller": self.sellers}
        return Schema(
            tables={name: Table(ids + 1) for name, ids in rows.items()},
            user=(Feature("user", "user"),),
            attributes=(Feature("category", "category"), Feature("seller", "seller")),
            category="category",
        )

    @property
    def attributes(self) -> dict[str, np.ndarray]:
        """Category and seller of each row of the item table, int64 [catalogue + 1]; row 0 is the unknown item."""
        row = np.arange(self.catalogue + 1)
        category, seller = 1 + (row - 1) % self.categories, 1 + (row - 1) % self.sellers
        category[0] = seller[0] = 0
        return {"category": category, "seller": seller}

    def draw(self, first: int, pages: int) -> Rows:
        """Page rows `first` to `first + pages - 1`; equal arguments give equal rows."""
        rng = np.random.default_rng([first, pages])
        page = first + np.arange(pages)
        time = FIRST_DAY + page
        long = self._behaviours(rng, pages)  # [pages, long]
        ago = np.arange(self.long, 0, -1)  # the k-th from the end was k seconds before the page
        clicks = (rng.random((pages, self.items)) < CLICK_RATE).astype(np.int8)
        return {
            page_row.PAGE_ID: page,
            page_row.TIME: time,
            page_row.TRIGGER: rng.integers(1, self.catalogue + 1, pages),
            "user": rng.integers(1, self.users + 1, pages),
            page_row.ITEMS: _lists(rng.integers(1, self.catalogue + 1, (pages, self.items))),
            page_row.CLICKS: _lists(clicks),
            page_row.SHORT_ITEMS: _lists(long[:, self.long - self.short :]),
            page_row.SHORT_TIMES: _lists((time[:, None] - ago)[:, self.long - self.short :]),
            page_row.LONG_ITEMS: _lists(long),
            page_row.LONG_TIMES: _lists(time[:, None] - ago),
        }

    def _behaviours(self, rng: np.random.Generator, pages: int) -> np.ndarray:
        """Int64 [pages, long]: items, equally many of each category, in random order."""
        category = rng.permuted(np.tile(np.arange(self.long) % self.categories, (pages, 1)), axis=1)
        return 1 + category + self.categories * rng.integers(0, self.catalogue // self.categories, category.shape)


def write(folder: Path, shape: Shape, instance_major: bool = False) -> Path:
    """Writes pages as a dataset folder.

    Args:
        folder: Folder to write.
        shape: Shape of the pages.
        instance_major: Whether each exposed item becomes a page of its own, with its own copy of everything.
    """
    starts = range(0, shape.pages, CHUNK)
    with DatasetWriter(folder, shape.schema) as writer:
        for start in starts:
            rows = shape.draw(start, min(CHUNK, shape.pages - start))
            writer.write("train", instances(rows) if instance_major else rows)
        for number, split in enumerate(("validation", "test")):
            writer.write(split, shape.draw(shape.pages + number * OTHERS, OTHERS))
        return writer.close(shape.attributes)


def instances(rows: Rows) -> Rows:
    """Each exposed item as a page of its own, with a copy of its page's user, trigger and sequences."""
    exposed = rows[page_row.ITEMS]
    assert isinstance(exposed, Ragged)
    page = np.repeat(np.arange(len(exposed.lengths)), exposed.lengths)  # [items]
    ones = np.ones(len(page), np.int64)
    of_items = (page_row.ITEMS, page_row.CLICKS)
    copies = {name: take(column, page) for name, column in rows.items() if name not in of_items}
    own = {name: Ragged.from_lengths(rows[name].values, ones) for name in of_items}  # type: ignore[union-attr]
    position = ranges(np.zeros_like(exposed.lengths), exposed.lengths)
    copies[page_row.PAGE_ID] = copies[page_row.PAGE_ID] * exposed.lengths.max() + position
    return {**copies, **own}


def feed(shape: Shape, batches: int, batch_pages: int) -> dict[str, np.ndarray]:
    """The pages of the first batches as arrays, one row an exposed item, as the peers are fed.

    Returns:
        user, target, click: int32 [instances]; short: int32 [instances, short]; long: int32 [instances, long];
        category, seller: int32 [catalogue + 1], the attributes of each item.
    """
    rows = instances(shape.draw(0, batches * batch_pages))
    columns = {"user": "user", "target": page_row.ITEMS, "click": page_row.CLICKS}
    columns |= {"short": page_row.SHORT_ITEMS, "long": page_row.LONG_ITEMS}
    found = {name: _values(rows[column]).astype(np.int32) for name, column in columns.items()}
    count = len(found["user"])
    for name in ("short", "long"):
        found[name] = found[name].reshape(count, -1)
    return found | {name: column.astype(np.int32) for name, column in shape.attributes.items()}


def _lists(values: np.ndarray) -> Ragged:
    """Rows of equal length."""
    return Ragged.from_lengths(values.reshape(-1), np.full(len(values), values.shape[1]))


def _values(column: np.ndarray | Ragged) -> np.ndarray:
    return column.values if isinstance(column, Ragged) else column
