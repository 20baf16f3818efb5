"""The hard search: of a page's long behaviours, those in the category of one of its items.

The reader searches when it makes a batch, `cut.py` when data is prepared, a scorer when it is asked. All call this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lightning_ccn.data.ragged import Ragged, ranges

if TYPE_CHECKING:  # a package is served where torch is not installed
    from lightning_ccn.data.schema import Schema

MOST_PAIRS = 1 << 22  # pairs of a page and a category that are looked up in a table, of 4 bytes each


@dataclass(frozen=True)
class Found:
    """What a search found; a *group* is a pair of a page and a category of its targets or of its trigger.

    Attributes:
        place: Int64 [behaviours found], where they are in the values of the long sequences; group-major, oldest first.
        lengths: Int64 [groups], how many of them each group has; groups are page-major.
        target_group: Int64 [items], the group of each target.
        trigger_group: Int64 [pages], the group of each trigger.
    """

    place: np.ndarray
    lengths: np.ndarray
    target_group: np.ndarray
    trigger_group: np.ndarray


class HardSearch:
    """Searches long sequences for the categories on their pages (SIM's hard search).

    Items of unknown category (row 0) have no category in common. Without a category in the schema, a page is one group,
    with behaviours of any item.

    Args:
        category: Int [rows of the item table], the category of each item; None: the data has none.
        categories: Number of categories, with the unknown one.
    """

    def __init__(self, category: np.ndarray | None, categories: int) -> None:
        self._of_item = category
        self._categories = 2 if category is None else categories  # 2: unknown, and the one of all items

    @staticmethod
    def of_schema(schema: Schema, items: Mapping[str, np.ndarray | Ragged]) -> HardSearch:
        """The search that a schema asks for.

        Args:
            schema: Schema of the dataset.
            items: Item attributes by name, int [rows of the item table] each.
        """
        if schema.category is None:
            return HardSearch(None, 0)
        table = next(f.table for f in schema.attributes if f.name == schema.category)
        return HardSearch(np.asarray(items[schema.category]), schema.tables[table].rows)

    def __call__(
        self, long: Ragged, targets: np.ndarray, target_page: np.ndarray, trigger: np.ndarray, most: int
    ) -> Found:
        """Finds the behaviours of each page's categories.

        Args:
            long: Item rows of the long sequences [pages].
            targets: Int [items], item rows.
            target_page: Int [items], the page of each target.
            trigger: Int [pages], item rows; 0 for a page without one.
            most: How many behaviours a group keeps, the most recent ones.
        """
        first = np.arange(len(trigger)) * self._categories  # of the pairs of each page
        of_long, of_target, of_trigger = (self._category(ids) for ids in (long.values, targets, trigger))
        wanted = np.concatenate([first[target_page] + of_target, first + of_trigger])
        groups, group = np.unique(wanted, return_inverse=True)
        at, group_of = self._members(np.repeat(first, long.lengths) + of_long, groups, len(trigger))
        at = at[np.argsort(group_of, kind="stable")]  # group-major; the stable sort keeps the order in time
        lengths = np.bincount(group_of, minlength=len(groups))
        kept = np.minimum(lengths, most)
        place = at[ranges(np.cumsum(lengths) - kept, kept)]
        return Found(place, kept, group[: len(targets)], group[len(targets) :])

    def _category(self, ids: np.ndarray) -> np.ndarray:
        return np.ones(len(ids), dtype=np.int32) if self._of_item is None else self._of_item[ids]

    def _members(self, pair: np.ndarray, groups: np.ndarray, pages: int) -> tuple[np.ndarray, np.ndarray]:
        """The behaviours of a known category that are in a group, and the group of each.

        Args:
            pair: Int64 [behaviours], the pair of each behaviour: its page's first one, plus its category.
            groups: Int64 [groups], the pair of each group, ascending.
            pages: Number of pages.
        """
        pairs = pages * self._categories
        kind = np.int16 if len(groups) < 1 << 15 else np.int32  # numpy sorts 16 bits by radix
        number = np.arange(len(groups), dtype=kind)
        number[groups % self._categories == 0] = -1  # unknown category
        if pairs > MOST_PAIRS:  # sorted search: 8 times slower, and no table
            near = np.minimum(np.searchsorted(groups, pair), len(groups) - 1)
            group_of = np.where(groups[near] == pair, number[near], kind(-1))
        else:
            table = np.full(pairs, -1, dtype=kind)
            table[groups] = number
            group_of = table[pair]
        at = np.flatnonzero(group_of >= 0)
        return at, group_of[at]
