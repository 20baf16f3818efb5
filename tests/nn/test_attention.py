"""Target attention over ragged segments, against one query at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_ccn.data.padding import Places
from lightning_ccn.nn.attention import TargetAttention
from tests.segments import behaviours_of, places_of

DIM, HEADS, GAIN = 12, 3, 2.0


def by_hand(attention: TargetAttention, query: Tensor, behaviours: Tensor) -> Tensor:
    """Eq. 1 and 2 for one query [dim] over its own behaviours [n, dim]; logits times gain over sqrt(dim / heads)."""
    if len(behaviours) == 0:
        return torch.zeros(DIM)
    heads = []
    width = DIM // HEADS
    for h in range(HEADS):
        rows = slice(h * width, (h + 1) * width)
        q, k, v = (w.weight[rows] for w in (attention.query, attention.key, attention.value))
        weights = torch.softmax((behaviours @ k.T) @ (q @ query) * GAIN / math.sqrt(width), 0)
        heads.append(weights @ (behaviours @ v.T))
    return torch.cat(heads)


@pytest.fixture
def attention() -> TargetAttention:
    torch.manual_seed(0)
    return TargetAttention(DIM, HEADS, GAIN)


def test_each_query_attends_to_its_own_segment(attention: TargetAttention) -> None:
    item = torch.randn(9, DIM)
    query, places = torch.randn(6, DIM), places_of([0, 0, 2, 2, 2, 3], segments=4)
    behaviours = behaviours_of([[0, 3, 3], [8], [], [1, 2]])
    found = attention(query, places, item, behaviours)
    of_segment = [item[[0, 3, 3]], item[[8]], item[[]], item[[1, 2]]]
    expected = [by_hand(attention, q, of_segment[s]) for q, s in zip(query, [0, 0, 2, 2, 2, 3], strict=True)]
    torch.testing.assert_close(found, torch.stack(expected))


def test_queries_come_in_any_order_of_their_segments(attention: TargetAttention) -> None:
    item, query = torch.randn(9, DIM), torch.randn(5, DIM)
    group = [2, 0, 2, 1, 0]
    of_group = [[4], [], [7, 8, 0]]
    found = attention(query, places_of(group, segments=3), item, behaviours_of(of_group))
    expected = [by_hand(attention, q, item[of_group[g]]) for q, g in zip(query, group, strict=True)]
    torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize("distinct", [9, 900])
def test_fewer_items_or_fewer_behaviours_are_projected(attention: TargetAttention, distinct: int) -> None:
    torch.manual_seed(1)
    item, query, time = torch.randn(distinct, DIM), torch.randn(3, DIM), torch.randn(2, DIM)
    places, behaviours = places_of([0, 0, 1], segments=2), behaviours_of([[0, 3, 3, 2, 1, 4], [8]], [[1] * 6, [0]])
    rows = []
    for layer in (attention.key, attention.value):
        layer.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    found = attention(query, places, item, behaviours, time)
    of = [item[[0, 3, 3, 2, 1, 4]] + time[1]] * 2 + [item[[8]] + time[0]]
    torch.testing.assert_close(found, torch.stack([by_hand(attention, q, o) for q, o in zip(query, of, strict=True)]))
    assert rows == ([9, 2, 9, 2] if distinct == 9 else [])  # 12 places of behaviours, with padding


def test_one_query_a_segment_needs_no_places(attention: TargetAttention) -> None:
    item, query, behaviours = torch.randn(9, DIM), torch.randn(3, DIM), behaviours_of([[0, 3], [], [1]])
    found = attention(query, Places(None, 3, 1), item, behaviours)
    torch.testing.assert_close(found, attention(query, places_of([0, 1, 2], segments=3), item, behaviours))


@pytest.mark.parametrize("one_query", [False, True])
def test_what_a_time_gap_adds_is_added_to_the_item_of_the_behaviour(
    attention: TargetAttention, one_query: bool
) -> None:
    item, time, query = torch.randn(9, DIM), torch.randn(4, DIM), torch.randn(3, DIM)
    of_segment, gaps = [[0, 3, 3], [], [8, 1]], [[3, 0, 2], [], [1, 3]]
    places = Places(None, 3, 1) if one_query else places_of([2, 0, 0], segments=3)
    found = attention(query, places, item, behaviours_of(of_segment, gaps), time)
    pairs = [(i, gap) for of, own in zip(of_segment, gaps, strict=True) for i, gap in zip(of, own, strict=True)]
    shifted = torch.stack([item[i] + time[gap] for i, gap in pairs])
    torch.testing.assert_close(found, attention(query, places, shifted, behaviours_of([[0, 1, 2], [], [3, 4]])))


def test_a_segment_without_behaviours_gives_zeros_and_a_finite_gradient(attention: TargetAttention) -> None:
    query = torch.randn(2, DIM, requires_grad=True)
    found = attention(query, places_of([0, 0], segments=1), torch.randn(3, DIM), behaviours_of([[]]))
    assert torch.equal(found, torch.zeros(2, DIM))
    found.sum().backward()
    assert query.grad is not None
    assert torch.equal(query.grad, torch.zeros(2, DIM))


@pytest.mark.parametrize("segments", [0, 1])
def test_no_queries_give_an_empty_answer_that_is_part_of_the_graph(attention: TargetAttention, segments: int) -> None:
    behaviours = behaviours_of([[1]] * segments)
    found = attention(torch.zeros(0, DIM), places_of([], segments), torch.randn(3, DIM), behaviours)
    assert found.shape == (0, DIM)
    assert found.requires_grad


def test_time_without_gaps_is_refused(attention: TargetAttention) -> None:
    with pytest.raises(ValueError, match="the batch has no time gaps: only for a system that says `reads_gaps = True`"):
        attention(
            torch.zeros(1, DIM), Places(None, 1, 1), torch.randn(3, DIM), behaviours_of([[1]]), torch.zeros(4, DIM)
        )


def test_heads_that_cannot_share_the_embedding_are_refused() -> None:
    with pytest.raises(ValueError, match="heads: an item's embedding of width 10 cannot be split into 4 heads"):
        TargetAttention(10, 4)
