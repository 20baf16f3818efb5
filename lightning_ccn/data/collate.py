"""`Collator`: from page rows to a `PageBatch`. It searches the long sequence and finds the distinct items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchrec import KeyedJaggedTensor

from lightning_ccn.data import page_row
from lightning_ccn.data.batch import PageBatch, keyed_jagged
from lightning_ccn.data.padding import Places
from lightning_ccn.data.page_row import ITEM
from lightning_ccn.data.parquet import PageRows, list_column, value_column
from lightning_ccn.data.ragged import Ragged, most_recent, take
from lightning_ccn.data.schema import Schema
from lightning_ccn.errors import DataError

MOST_DEVIATIONS = 1e15  # the squares of larger numbers overflow float32 after a layer or two


@dataclass(frozen=True)
class Collator:
    """Makes `PageBatch`es of page rows.

    Attributes:
        schema: Schema of the dataset.
        items: Item attributes by name, int [rows of the item table] each.
        moments: (mean, standard deviation) of each per-item number.
        short_length: How many of the most recent short behaviours are kept.
        long_length: How many of the most recent long behaviours are kept for each category.
    """

    schema: Schema
    items: Mapping[str, np.ndarray]
    moments: Mapping[str, tuple[float, float]]
    short_length: int
    long_length: int

    def __call__(self, rows: PageRows) -> PageBatch:
        """The batch of these pages, in order.

        Pages without items are skipped. If no page is left, the batch holds one placeholder page, see `PageBatch`.

        Raises:
            DataError: A number is too far from the training data's to be computed with.
        """
        kept = np.flatnonzero(list_column(rows, page_row.ITEMS).lengths)
        rows = {name: take(column, kept) for name, column in rows.items()} if len(kept) else _placeholder_page(rows)
        exposed = list_column(rows, page_row.ITEMS)
        pages = len(exposed.lengths)
        trigger = value_column(rows, page_row.TRIGGER)
        short = most_recent(list_column(rows, page_row.SHORT_ITEMS), self.short_length)
        target_page = np.repeat(np.arange(pages), exposed.lengths)
        long, target_group, trigger_group = self._search(
            list_column(rows, page_row.LONG_ITEMS), exposed.values, target_page, trigger
        )
        asked, at_asked = np.unique(target_group, return_inverse=True)
        places = [exposed.values, trigger, short.values, long.values]
        distinct, index = np.unique(np.concatenate(places), return_inverse=True)
        target_at, trigger_at, short_at, long_at = np.split(index, np.cumsum([len(p) for p in places[:-1]]))
        clicks = rows.get(page_row.CLICKS)
        return PageBatch(
            page_id=_tensor(value_column(rows, page_row.PAGE_ID)),
            user=self._user(rows, pages),
            item=self._item(distinct),
            target=_tensor(target_at),
            page_lengths=_tensor(exposed.lengths),
            page=_tensor(target_page),
            of_page=_places(target_page, exposed.lengths),
            trigger=_tensor(trigger_at),
            short=_tensor(short_at),
            short_lengths=_tensor(short.lengths),
            longest_short=_longest(short.lengths),
            long=_tensor(long_at),
            long_lengths=_tensor(long.lengths),
            longest_long=_longest(long.lengths),
            target_group=_tensor(target_group),
            trigger_group=_tensor(trigger_group),
            group_of_targets=_tensor(asked),
            of_group=_places(at_asked, np.bincount(at_asked, minlength=len(asked))),
            numbers=self._numbers(rows, len(exposed.values)),
            clicks=torch.from_numpy(clicks.values.astype(np.float32)) if isinstance(clicks, Ragged) else None,
        )

    def _search(
        self, long: Ragged, targets: np.ndarray, target_page: np.ndarray, trigger: np.ndarray
    ) -> tuple[Ragged, np.ndarray, np.ndarray]:
        """SIM's hard search: the behaviours of the same category, for every target and trigger.

        Args:
            long: Item rows of the long sequences [pages].
            targets: Int [items], item rows.
            target_page: Int [items], page of each target.
            trigger: Int [pages], item rows.

        Returns:
            Item rows of the behaviours [groups], see `PageBatch.long`; the group of each target, int [items]; the group
            of each trigger, int [pages].
        """
        long_page = np.repeat(np.arange(len(trigger)), long.lengths)
        if self.schema.category is None:  # one group per page, with behaviours of any item
            category = [np.ones(len(ids), dtype=np.int64) for ids in (targets, trigger, long.values)]
            categories = 2
        else:
            of_item = self.items[self.schema.category]
            category = [of_item[ids] for ids in (targets, trigger, long.values)]
            categories = next(
                self.schema.tables[f.table].rows for f in self.schema.attributes if f.name == self.schema.category
            )
        of_target, of_trigger, of_long = category
        wanted = np.concatenate(
            [target_page * categories + of_target, np.arange(len(trigger)) * categories + of_trigger]
        )
        groups, group = np.unique(wanted, return_inverse=True)
        key = long_page * categories + of_long
        place = np.minimum(np.searchsorted(groups, key), len(groups) - 1)
        # items of unknown category (row 0) have no category in common
        hit = np.flatnonzero((groups[place] == key) & (of_long != 0))
        hit = hit[np.argsort(place[hit], kind="stable")]  # group-major; the stable sort keeps the order in time
        found = Ragged.from_lengths(long.values[hit], np.bincount(place[hit], minlength=len(groups)))
        return most_recent(found, self.long_length), group[: len(targets)], group[len(targets) :]

    def _user(self, rows: PageRows, pages: int) -> KeyedJaggedTensor:
        values, lengths = [], []
        for feature in self.schema.user:
            column = rows[feature.name]
            values.append(column.values if isinstance(column, Ragged) else column)
            lengths.append(column.lengths if isinstance(column, Ragged) else np.ones(pages, np.int64))
        return _keyed([f.name for f in self.schema.user], values, lengths, pages)

    def _item(self, distinct: np.ndarray) -> KeyedJaggedTensor:
        names = [feature.name for feature in self.schema.item]
        values = [distinct if name == ITEM else self.items[name][distinct] for name in names]
        return _keyed(names, values, [np.ones(len(distinct), np.int64)] * len(names), len(distinct))

    def _numbers(self, rows: PageRows, items: int) -> Tensor:
        scaled = np.zeros((items, len(self.schema.numbers)), dtype=np.float32)
        for at, name in enumerate(self.schema.numbers):
            mean, deviation = self.moments[name]
            values = list_column(rows, name).values.astype(np.float64)  # float16 would overflow in between
            standard = np.nan_to_num((values - mean) / deviation, nan=0.0)  # replace a missing number by the mean
            if len(far := np.flatnonzero(np.abs(standard) > MOST_DEVIATIONS)):
                page = np.searchsorted(list_column(rows, name).offsets, far[0], side="right") - 1
                raise DataError(
                    f"page_id {value_column(rows, page_row.PAGE_ID)[page]}, column {name}: {values[far[0]]:g} is "
                    f"{abs(standard[far[0]]):.1g} deviations from the mean of training, {mean:g}; write NaN or null "
                    "for an unknown number"
                )
            scaled[:, at] = standard
        return torch.from_numpy(scaled)


def _placeholder_page(rows: PageRows) -> PageRows:
    """One page without items, with an unknown user and trigger."""
    return {
        name: Ragged(column.values[:0], np.zeros(2, np.int64)) if isinstance(column, Ragged) else _unknown(name)
        for name, column in rows.items()
    }


def _unknown(name: str) -> np.ndarray:
    return np.full(1, -1 if name == page_row.PAGE_ID else 0)


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))


def _longest(lengths: np.ndarray) -> int:
    return max(int(lengths.max(initial=0)), 1)


def _places(segment: np.ndarray, lengths: np.ndarray) -> Places:
    """Places of rows in a tensor that is padded by segment.

    Args:
        segment: Int [rows], the segment of each row, in any order.
        lengths: Int [segments], number of rows of each segment.
    """
    order = np.argsort(segment, kind="stable")
    position = np.empty(len(segment), np.int64)
    position[order] = np.arange(len(segment)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    longest = _longest(lengths)
    return Places(_tensor(segment * longest + position), len(lengths), longest)


def _keyed(names: list[str], values: list[np.ndarray], lengths: list[np.ndarray], stride: int) -> KeyedJaggedTensor:
    return keyed_jagged(
        names,
        _tensor(np.concatenate(values) if values else np.zeros(0)),
        _tensor(np.concatenate(lengths) if lengths else np.zeros(0)),
        stride,
        [len(of_key) for of_key in values],
    )
