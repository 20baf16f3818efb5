"""Page views that are ready for batches: checked, searched and cut, so that a batch only joins and numbers them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_ccn.data.ragged import Ragged, slices

Blocks = Mapping[str, np.ndarray]  # see `ReadyPages.blocks`; the rows of some pages, one page after the other

PAGES, PAGE_NUMBERS, ITEMS, NUMBERS, WEIGHT = "pages", "page_numbers", "items", "numbers", "weight"
ORDERS = "orders"
SHORT, LONG, GROUPS = "short", "long", "groups"
SHORT_GAP, LONG_GAP = "short_gap", "long_gap"


@dataclass(frozen=True)
class ReadyPages:
    """Page views of one row group, in the order in which an epoch reads them.

    What a page has many of is in a *block*: an array in which the rows of a page are consecutive. So the pages of a
    batch are slices of a few arrays, which cost next to nothing to cut and to join.

    A page without exposed items has no rows in any block.

    Attributes:
        blocks: Arrays [rows, ...] by name: `PAGES` and `PAGE_NUMBERS`, one row per page; `ITEMS`, `NUMBERS`, `WEIGHT`
            and `ORDERS`, one row per exposed item; `SHORT`, `LONG`, `SHORT_GAP`, `LONG_GAP`, one per behaviour;
            `GROUPS`, one per group of the search; and one block for each profile feature with many values. What the
            columns of a block hold is the `Collator`'s business.
        starts: By block, the row where each page starts, and the number of rows; [pages + 1].
    """

    blocks: Blocks
    starts: Mapping[str, Sequence[int]]

    def between(self, begin: int, end: int) -> dict[str, np.ndarray]:
        """The rows of the pages from `begin` up to, and without, `end`; views of the blocks."""
        return {name: rows[self.starts[name][begin] : self.starts[name][end]] for name, rows in self.blocks.items()}


def ready(blocks: Blocks, lengths: Mapping[str, np.ndarray], kept: np.ndarray, order: np.ndarray | None) -> ReadyPages:
    """Puts the pages of a row group into an epoch's order.

    Args:
        blocks: Rows of the pages that are kept, in the order of the file.
        lengths: By block, how many rows each of these pages has: int [kept pages].
        kept: Bool [pages], which pages of the row group are kept.
        order: Int [pages], the pages of the row group in the epoch's order; None for the order of the file.
    """
    if order is not None:
        place = (np.cumsum(kept) - 1)[order]  # of a kept page among those that are kept
        kept = kept[order]
        place = place[kept]
        moved = {}
        for name, rows in blocks.items():
            ragged = Ragged.from_lengths(rows, lengths[name])
            moved[name] = slices(ragged, ragged.offsets[place], lengths[name][place]).values
        blocks = moved
        lengths = {name: of_page[place] for name, of_page in lengths.items()}
    before = np.concatenate([[0], np.cumsum(kept)])  # kept pages before each page
    starts = {name: np.concatenate([[0], np.cumsum(lengths[name])])[before].tolist() for name in blocks}
    return ReadyPages(blocks, starts)


def joined(parts: Iterable[Blocks]) -> dict[str, np.ndarray]:
    """The blocks of several parts, one after the other; at least one part."""
    first, *others = parts
    return {name: np.concatenate([rows, *(part[name] for part in others)]) for name, rows in first.items()}
