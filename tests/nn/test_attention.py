"""Target attention over ragged segments, against one query at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_ccn.nn.attention import TargetAttention

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
    query, query_lengths = torch.randn(6, DIM), torch.tensor([2, 0, 3, 1])
    behaviour, lengths = torch.tensor([0, 3, 3, 8, 1, 2]), torch.tensor([3, 1, 0, 2])
    found = attention(query, query_lengths, item, behaviour, lengths)
    of_segment = [item[[0, 3, 3]], item[[8]], item[[]], item[[1, 2]]]
    expected = [by_hand(attention, q, of_segment[s]) for q, s in zip(query, [0, 0, 2, 2, 2, 3], strict=True)]
    torch.testing.assert_close(found, torch.stack(expected))


def test_search_attends_to_the_group_that_a_query_names(attention: TargetAttention) -> None:
    item, query = torch.randn(9, DIM), torch.randn(5, DIM)
    group = torch.tensor([3, 0, 3, 1, 0])  # in any order; group 2 is asked by nobody
    long, lengths = torch.tensor([4, 5, 6, 7, 8, 0]), torch.tensor([1, 0, 2, 3])
    found = attention.search(query, group, item, long, lengths)
    of_group = [item[[4]], item[[]], item[[5, 6]], item[[7, 8, 0]]]
    expected = [by_hand(attention, q, of_group[g]) for q, g in zip(query, group.tolist(), strict=True)]
    torch.testing.assert_close(found, torch.stack(expected))


def test_a_segment_without_behaviours_gives_zeros_and_a_finite_gradient(attention: TargetAttention) -> None:
    query = torch.randn(2, DIM, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    found = attention(query, torch.tensor([2]), torch.randn(3, DIM), none, torch.tensor([0]))
    assert torch.equal(found, torch.zeros(2, DIM))
    found.sum().backward()
    assert query.grad is not None
    assert torch.equal(query.grad, torch.zeros(2, DIM))


def test_no_queries_give_an_empty_answer_that_is_part_of_the_graph(attention: TargetAttention) -> None:
    nothing, none = torch.zeros(0, DIM), torch.zeros(0, dtype=torch.int64)
    for found in (
        attention(nothing, torch.tensor([0]), torch.randn(3, DIM), torch.tensor([1]), torch.tensor([1])),
        attention.search(nothing, none, torch.randn(3, DIM), torch.tensor([1]), torch.tensor([1])),
    ):
        assert found.shape == (0, DIM)
        assert found.requires_grad


def test_heads_that_cannot_share_the_embedding_are_refused() -> None:
    with pytest.raises(ValueError, match="heads: an item's embedding of width 10 cannot be split into 4 heads"):
        TargetAttention(10, 4)
