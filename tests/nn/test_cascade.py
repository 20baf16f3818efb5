"""CRRN's cascade against a loop over queries, heads and behaviours, and where it is a plain attention."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_ccn.nn.attention import TargetAttention
from lightning_ccn.nn.cascade import Cascade
from tests.segments import behaviours_of, places_of

DIM, HEADS = 12, 3
SEGMENT = [0, 0, 1, 2, 2]  # of each target
BEHAVIOURS = [[0, 3, 3, 5], [8], [1, 2, 7]]


@pytest.fixture
def item() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(9, DIM, dtype=torch.float64)


@pytest.fixture
def target(item: Tensor) -> Tensor:
    return torch.randn(5, DIM, dtype=item.dtype)


@pytest.fixture
def trigger(item: Tensor) -> Tensor:
    return torch.randn(3, DIM, dtype=item.dtype)


@pytest.fixture
def cascade(item: Tensor) -> Cascade:
    return Cascade(DIM, HEADS).to(item.dtype)


def attend(cascade: Cascade, target: Tensor, trigger: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
    """What both attentions find, without the feed-forward networks."""
    return cascade.of_target.cascaded(
        target, places_of(SEGMENT, 3), item, behaviours_of(BEHAVIOURS), cascade.of_trigger, trigger
    )


def weights(attention: TargetAttention, head: int, query: Tensor, behaviours: Tensor) -> Tensor:
    rows = slice(head * DIM // HEADS, (head + 1) * DIM // HEADS)
    q, k = attention.query.weight[rows] @ query, behaviours @ attention.key.weight[rows].T
    return torch.softmax(k @ q * attention.scale, 0)


def values(attention: TargetAttention, head: int, behaviours: Tensor) -> Tensor:
    rows = slice(head * DIM // HEADS, (head + 1) * DIM // HEADS)
    return behaviours @ attention.value.weight[rows].T


def test_the_second_weights_are_the_product_of_both_attentions_weights(
    cascade: Cascade, target: Tensor, trigger: Tensor, item: Tensor
) -> None:
    first, second = [], []
    for query, page in zip(target, SEGMENT, strict=True):
        own = item[BEHAVIOURS[page]]
        for head in range(HEADS):
            alpha = weights(cascade.of_target, head, query, own)
            gamma = weights(cascade.of_trigger, head, trigger[page], own)
            first.append(alpha @ values(cascade.of_target, head, own))
            second.append(alpha * gamma / (alpha * gamma).sum() @ values(cascade.of_trigger, head, own))
    found = attend(cascade, target, trigger, item)
    torch.testing.assert_close(found[0].flatten(), torch.cat(first))
    torch.testing.assert_close(found[1].flatten(), torch.cat(second))


def test_the_trigger_moves_the_second_interest_alone(
    cascade: Cascade, target: Tensor, trigger: Tensor, item: Tensor
) -> None:
    before, after = attend(cascade, target, trigger, item), attend(cascade, target, trigger.flip(0), item)
    assert torch.equal(after[0], before[0])
    moved = (after[1] != before[1]).any(1)
    assert moved.tolist() == [True, True, False, True, True]  # page 1 keeps its trigger, and has one behaviour


def test_where_one_attention_has_no_preference_the_second_interest_is_that_of_the_other(
    cascade: Cascade, target: Tensor, trigger: Tensor, item: Tensor
) -> None:
    places, behaviours = places_of(SEGMENT, 3), behaviours_of(BEHAVIOURS)
    nn.init.zeros_(cascade.of_target.query.weight)
    of_trigger = cascade.of_trigger(trigger[SEGMENT], places, item, behaviours)
    torch.testing.assert_close(attend(cascade, target, trigger, item)[1], of_trigger)

    nn.init.normal_(cascade.of_target.query.weight)
    nn.init.zeros_(cascade.of_trigger.query.weight)
    found, kept = attend(cascade, target, trigger, item)
    assert not torch.allclose(kept, found)
    cascade.of_trigger.value.load_state_dict(cascade.of_target.value.state_dict())
    found, kept = attend(cascade, target, trigger, item)
    torch.testing.assert_close(kept, found)


def test_a_feed_forward_network_is_added_to_each(
    cascade: Cascade, target: Tensor, trigger: Tensor, item: Tensor
) -> None:
    found, kept = attend(cascade, target, trigger, item)
    interests = cascade(target, trigger, places_of(SEGMENT, 3), item, behaviours_of(BEHAVIOURS))
    torch.testing.assert_close(interests[0], found + cascade.after_target(found))
    torch.testing.assert_close(interests[1], kept + cascade.after_trigger(kept))


def test_a_page_without_behaviours_gives_what_the_networks_make_of_zeros(cascade: Cascade, item: Tensor) -> None:
    target = torch.randn(2, DIM, dtype=item.dtype, requires_grad=True)
    trigger = torch.randn(1, DIM, dtype=item.dtype, requires_grad=True)
    interests = cascade(target, trigger, places_of([0, 0], 1), item, behaviours_of([[]]))
    nothing = torch.zeros(2, DIM, dtype=item.dtype)
    torch.testing.assert_close(interests[0], cascade.after_target(nothing))
    torch.testing.assert_close(interests[1], cascade.after_trigger(nothing))
    (interests[0].sum() + interests[1].sum()).backward()
    for query in (target, trigger):
        assert query.grad is not None
        assert not torch.as_tensor(query.grad).any()
