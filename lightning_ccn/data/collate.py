"""`Collator`: from page rows to a `PageBatch`. It searches the long sequence and finds the distinct items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from torchrec import KeyedJaggedTensor

from lightning_ccn.data import page_row
from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.item_features import ItemFeatures, distinct_rows, float32, int64, keyed
from lightning_ccn.data.padding import Places
from lightning_ccn.data.parquet import PageRows, list_column, value_column
from lightning_ccn.data.ragged import Ragged, most_recent, take
from lightning_ccn.data.ready_pages import (
    GROUPS,
    ITEMS,
    LONG,
    LONG_GAP,
    NUMBERS,
    ORDERS,
    PAGE_NUMBERS,
    PAGES,
    SHORT,
    SHORT_GAP,
    WEIGHT,
    Blocks,
    ReadyPages,
    ready,
)
from lightning_ccn.data.schema import Schema
from lightning_ccn.data.search import HardSearch
from lightning_ccn.data.time_gaps import gap_buckets
from lightning_ccn.errors import DataError

MOST_DEVIATIONS = 1e15  # the squares of larger numbers overflow float32 after a layer or two

# Columns of the block PAGES, int64; then one per profile feature: its value, or the number of its values
PAGE_ID, TRIGGER, TRIGGER_GROUP, ITEM_COUNT, SHORT_COUNT, GROUP_COUNT, FIRST_FEATURE = range(7)
# Columns of the block ITEMS, int32: the item row; the target's group among those of its page; the click, where the
# data has clicks; and, where positions have a bias, which one
ROW, GROUP, CLICK, POSITION = range(4)


@dataclass(frozen=True)
class Collator:
    """Makes `PageBatch`es of page rows, in two steps.

    `prepare` does what depends on a page alone, once for a whole row group. `batch` does what depends on the batch: it
    finds the distinct items, and numbers pages and groups.

    Attributes:
        schema: Schema of the dataset.
        items: Item attributes by name, int [rows of the item table] each, or a `Ragged` of these.
        moments: (mean, standard deviation) of each number.
        short_length: How many of the most recent short behaviours are kept.
        long_length: How many of the most recent long behaviours are kept for each category; 0 leaves them out.
        vectors: Vectors of items by name, floats [rows of the item table, width] each; those of the schema.
    """

    schema: Schema
    items: Mapping[str, np.ndarray | Ragged]
    moments: Mapping[str, tuple[float, float]]
    short_length: int
    long_length: int
    vectors: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __call__(self, rows: PageRows) -> PageBatch:
        """The batch of these pages, in order.

        Raises:
            DataError: A number is too far from the training data's to be computed with.
        """
        pages = self.prepare(rows)
        return self.batch(pages.between(0, len(value_column(rows, page_row.PAGE_ID))))

    def prepare(self, rows: PageRows, order: np.ndarray | None = None) -> ReadyPages:
        """Searches, cuts and numbers what belongs to each page.

        Args:
            rows: Page rows, as `parquet.decode` returns them.
            order: Int [pages], the order in which the pages will be read; None for that of `rows`.

        Raises:
            DataError: A number is too far from the training data's to be computed with.
        """
        kept = list_column(rows, page_row.ITEMS).lengths > 0
        if not kept.all():
            rows = {name: take(column, np.flatnonzero(kept)) for name, column in rows.items()}
        exposed, trigger = list_column(rows, page_row.ITEMS), value_column(rows, page_row.TRIGGER)
        pages = len(trigger)
        target_page = np.repeat(np.arange(pages), exposed.lengths)
        short = most_recent(list_column(rows, page_row.SHORT_ITEMS), self.short_length)
        nothing = Ragged(np.zeros(0, np.int64), np.zeros(pages + 1, np.int64))
        long = list_column(rows, page_row.LONG_ITEMS) if self.long_length else nothing
        found = self._search(long, exposed.values, target_page, trigger, self.long_length)
        group_page = np.empty(len(found.lengths), np.int64)
        group_page[found.target_group], group_page[found.trigger_group] = target_page, np.arange(pages)
        group_count = np.bincount(group_page, minlength=pages)
        first_group = _before(group_count)
        columns = [
            value_column(rows, page_row.PAGE_ID),
            trigger,
            found.trigger_group - first_group,
            exposed.lengths,
            short.lengths,
            group_count,
        ]
        of_item = [exposed.values, found.target_group - first_group[target_page]]
        if isinstance(clicks := rows.get(page_row.CLICKS), Ragged):
            of_item.append(clicks.values)
            if (most := self.schema.position_bias) is not None:
                of_item.append(list_column(rows, page_row.POSITIONS).values.clip(1, most) - 1)
        blocks = {
            ITEMS: _columns(of_item, np.int32),
            SHORT: short.values.astype(np.int32),
            LONG: long.values[found.place].astype(np.int32),
            GROUPS: found.lengths.astype(np.int32),
        }
        long_count = np.bincount(group_page, found.lengths, minlength=pages).astype(np.int64)
        lengths = {ITEMS: exposed.lengths, SHORT: short.lengths, LONG: long_count, GROUPS: group_count}
        lengths[PAGES] = np.ones(pages, np.int64)
        if self.schema.numbers:
            blocks[NUMBERS], lengths[NUMBERS] = self._numbers(rows, self.schema.numbers), exposed.lengths
        if self.schema.page_numbers:
            blocks[PAGE_NUMBERS], lengths[PAGE_NUMBERS] = self._numbers(rows, self.schema.page_numbers), lengths[PAGES]
        if page_row.SHORT_TIMES in rows:
            time = value_column(rows, page_row.TIME)
            times = most_recent(list_column(rows, page_row.SHORT_TIMES), self.short_length).values
            blocks[SHORT_GAP], lengths[SHORT_GAP] = gap_buckets(np.repeat(time, short.lengths), times), short.lengths
            times = list_column(rows, page_row.LONG_TIMES).values if self.long_length else nothing.values
            page_time = np.repeat(time[group_page], found.lengths)
            blocks[LONG_GAP], lengths[LONG_GAP] = gap_buckets(page_time, times[found.place]), long_count
        if (name := self.schema.weight) is not None and name in rows:
            weight = list_column(rows, name)
            blocks[WEIGHT], lengths[WEIGHT] = weight.values.astype(np.float32), exposed.lengths
        if isinstance(orders := rows.get(page_row.PURCHASES), Ragged):
            blocks[ORDERS], lengths[ORDERS] = orders.values.astype(np.float32), exposed.lengths
        for feature in self.schema.user:
            column = rows[feature.name]
            columns.append(column.lengths if isinstance(column, Ragged) else column)
            if isinstance(column, Ragged):
                name = _block_of(feature.name)
                blocks[name], lengths[name] = column.values, column.lengths
        blocks[PAGES] = _columns(columns, np.int64)
        return ready(blocks, lengths, kept, order)

    def batch(self, blocks: Blocks) -> PageBatch:
        """The batch of pages that `prepare` made ready.

        Without a page, it holds one placeholder page, see `PageBatch`.
        """
        page, target = blocks[PAGES].T.copy(), blocks[ITEMS].T.copy()  # each column in one piece
        long_lengths = blocks[GROUPS]
        if not page.shape[1]:  # an unknown user and trigger, and no behaviours
            page, long_lengths = np.zeros((len(page), 1), np.int64), np.zeros(1, np.int64)
            page[PAGE_ID], page[GROUP_COUNT] = -1, 1
        pages, items = page.shape[1], target.shape[1]
        item_count, short_count, trigger = page[ITEM_COUNT], page[SHORT_COUNT], page[TRIGGER]
        target_page = np.repeat(np.arange(pages), item_count)
        place, longest = np.arange(items) - _before(item_count)[target_page], _longest(item_count)
        first_group = _before(page[GROUP_COUNT])
        distinct, (target_at, trigger_at, short_at, long_at) = distinct_rows(
            [target[ROW], trigger.astype(np.int32), blocks[SHORT], blocks[LONG]]
        )
        numbers = blocks[NUMBERS] if self.schema.numbers else np.zeros((items, 0), np.float32)
        page_numbers = blocks.get(PAGE_NUMBERS)
        if page_numbers is None or not len(page_numbers):
            page_numbers = np.zeros((pages, len(self.schema.page_numbers)), np.float32)
        item, attribute, lists = self._of_items.features(distinct)
        return PageBatch(
            page_id=int64(page[PAGE_ID]),
            user=self._user(blocks, page),
            item=item,
            attribute=attribute,
            target=int64(target_at),
            page_lengths=int64(item_count),
            page=int64(target_page),
            of_page=Places(int64(target_page * longest + place), pages, longest),
            trigger=int64(trigger_at),
            short=int64(short_at),
            short_lengths=int64(short_count),
            longest_short=_longest(short_count),
            long=int64(long_at),
            long_lengths=int64(long_lengths),
            longest_long=_longest(long_lengths) if self.long_length else 0,
            target_group=int64(target[GROUP] + first_group[target_page]),
            trigger_group=int64(page[TRIGGER_GROUP] + first_group),
            numbers=float32(numbers),
            page_numbers=float32(page_numbers),
            clicks=float32(target[CLICK]) if len(target) > CLICK else None,
            position=int64(target[POSITION]) if len(target) > POSITION else None,
            weight=float32(blocks[WEIGHT]) if WEIGHT in blocks else None,
            orders=float32(blocks[ORDERS]) if ORDERS in blocks else None,
            attribute_lists=lists,
            vectors=self._of_items.frozen_vectors(distinct) if self.schema.vectors else None,
            logarithms=self._of_items.logarithms(distinct) if self.schema.ratio_to_trigger else None,
            short_gap=int64(blocks[SHORT_GAP]) if SHORT_GAP in blocks else None,
            long_gap=int64(blocks[LONG_GAP]) if LONG_GAP in blocks else None,
        )

    @cached_property
    def _of_items(self) -> ItemFeatures:
        return ItemFeatures(self.schema, self.items, self.vectors)

    @cached_property
    def _search(self) -> HardSearch:
        return HardSearch.of_schema(self.schema, self.items)

    def _user(self, blocks: Blocks, page: np.ndarray) -> KeyedJaggedTensor:
        values, lengths = [], []
        for feature, column in zip(self.schema.user, page[FIRST_FEATURE:], strict=True):
            values.append(blocks[_block_of(feature.name)] if feature.many else column)
            lengths.append(column if feature.many else np.ones(page.shape[1], np.int64))
        return keyed([f.name for f in self.schema.user], values, lengths, page.shape[1])

    def _numbers(self, rows: PageRows, names: Sequence[str]) -> np.ndarray:
        """Standardised numbers of exposed items, or of pages: float32 [items or pages, names]."""
        return np.stack([self._standard(rows, name) for name in names], axis=1).astype(np.float32)

    def _standard(self, rows: PageRows, name: str) -> np.ndarray:
        column, (mean, deviation) = rows[name], self.moments[name]
        values = column.values if isinstance(column, Ragged) else column
        standard = (values.astype(np.float64) - mean) / deviation  # float16 would overflow in between
        standard = np.nan_to_num(standard, nan=0.0)  # replace a missing number by the mean
        if len(far := np.flatnonzero(np.abs(standard) > MOST_DEVIATIONS)):
            at = far[0]
            page = np.searchsorted(column.offsets, at, side="right") - 1 if isinstance(column, Ragged) else at
            raise DataError(
                f"page_id {value_column(rows, page_row.PAGE_ID)[page]}, column {name}: {values[at]:g} is "
                f"{abs(standard[at]):.1g} deviations from the mean of training, {mean:g}; write NaN or null "
                "for an unknown number"
            )
        return standard


def _block_of(feature: str) -> str:
    """Name of the block of a profile feature with many values; the space keeps it apart from the other blocks."""
    return f"feature {feature}"


def _columns(columns: list[np.ndarray], dtype: type[np.integer]) -> np.ndarray:
    """The arrays side by side: [rows, columns]."""
    block = np.empty((len(columns[0]), len(columns)), dtype)
    for at, column in enumerate(columns):
        block[:, at] = column
    return block


def _before(counts: np.ndarray) -> np.ndarray:
    """The sum of the counts before each one."""
    return np.cumsum(counts) - counts


def _longest(lengths: np.ndarray) -> int:
    return max(int(lengths.max(initial=0)), 1)
