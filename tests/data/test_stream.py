"""The order of page views is a function of (seed, epoch, step), for every world size."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_ccn.data.stream import PageOrder
from lightning_ccn.errors import DataError

GROUPS = np.array([5, 0, 7, 3, 12, 1])


def slice_of(order: PageOrder, epoch: int, step: int, rank: int = 0, world_size: int = 1) -> list[tuple[int, int]]:
    """(row group, row) of each page of a rank's slice."""
    found = []
    for group, begin, end in order.stretches(epoch, step, rank, world_size):
        rows = order.rows_of(epoch, group)
        found += [(group, row if rows is None else int(rows[row])) for row in range(begin, end)]
    return found


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize(("batch_pages", "lanes"), [(4, 2), (8, 64), (6, 4), (1, 1), (100, 10)])
def test_an_epoch_holds_every_page_exactly_once(batch_pages: int, lanes: int, seed: int | None) -> None:
    order = PageOrder(GROUPS, batch_pages, lanes, seed)
    seen = [page for step in range(order.steps) for page in slice_of(order, 2, step)]
    assert sorted(seen) == [(group, row) for group, rows in enumerate(GROUPS) for row in range(rows)]
    assert slice_of(order, 2, order.steps) == []


@pytest.mark.parametrize("world_size", [2, 3, 4, 8])
def test_ranks_share_the_batch_that_one_rank_would_see(world_size: int) -> None:
    for step in range(PageOrder(GROUPS, 8, 8, 1).steps):
        alone = slice_of(PageOrder(GROUPS, 8, 8, 1), 0, step)
        shared = [slice_of(PageOrder(GROUPS, 8, 8, 1), 0, step, rank, world_size) for rank in range(world_size)]
        assert [page for part in shared for page in part] == alone


def test_a_batch_does_not_depend_on_what_was_read_before() -> None:
    fresh, used = PageOrder(GROUPS, 4, 2, 1), PageOrder(GROUPS, 4, 2, 1)
    for epoch, step in [(0, 0), (3, 5), (0, 2)]:
        slice_of(used, epoch, step)
    assert slice_of(used, 1, 4) == slice_of(fresh, 1, 4)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first = slice_of(PageOrder(GROUPS, 28, 1, 1), 0, 0)
    assert first != slice_of(PageOrder(GROUPS, 28, 1, 1), 1, 0)
    assert first != slice_of(PageOrder(GROUPS, 28, 1, 2), 0, 0)


def test_without_a_seed_the_order_is_that_of_the_files() -> None:
    pages = slice_of(PageOrder(GROUPS, 28, 1, None), 5, 0)
    assert pages == sorted(pages)


def test_more_ranks_than_lanes_are_rejected_with_the_remedy() -> None:
    def refusal(batch_pages: int, lanes: int, ranks: int) -> str:
        with pytest.raises(DataError) as caught:
            PageOrder(GROUPS, batch_pages, lanes, 1).lanes_of(0, ranks)
        return str(caught.value)

    assert refusal(4, 64, 5) == (
        "5 ranks cannot share a global batch of 4 pages: make data.batch_pages a multiple of 5"
    )
    assert refusal(16, 4, 8).endswith("of 16 pages: make data.batch_pages a multiple of 8, and data.lanes 8 or more")
    assert len(PageOrder(GROUPS, 5, 64, 1).lanes_of(0, 5)) == len(PageOrder(GROUPS, 16, 8, 1).lanes_of(0, 8)) == 1


def test_a_batch_of_no_pages_is_rejected() -> None:
    with pytest.raises(DataError, match="batch_pages is 0"):
        PageOrder(GROUPS, 0, 64, 1)
