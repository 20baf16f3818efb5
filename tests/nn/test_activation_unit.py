"""DIN's activation unit against one target at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_ccn.nn.activation_unit import ActivationUnit
from lightning_ccn.nn.dice import Dice
from tests.segments import behaviours_of, places_of

DIM, HIDDEN = 6, 5
PAGE = [0, 0, 2, 3, 3, 3]
SEQUENCES = [[4, 1, 4], [0, 7], [], [2]]


@pytest.fixture
def unit() -> ActivationUnit:
    torch.manual_seed(0)
    return ActivationUnit(DIM, HIDDEN)


def by_hand(unit: ActivationUnit, target: Tensor, behaviours: Tensor) -> Tensor:
    """The first layer on the concatenation (behaviour, target, product), one pair after another."""
    first = torch.cat([unit.of_behaviour.weight, unit.of_target.weight, unit.of_product.weight], 1)
    total = torch.zeros(DIM)
    for behaviour in behaviours:
        hidden = first @ torch.cat([behaviour, target, unit.gain * behaviour * target]) + unit.of_target.bias
        total = total + unit.weight(unit.activation(hidden[None]))[0] * behaviour
    return total


def test_it_is_an_mlp_of_behaviour_target_and_product_that_weighs_a_sum(unit: ActivationUnit) -> None:
    target, item = torch.randn(6, DIM), torch.randn(8, DIM)
    found = unit(target, places_of(PAGE, 4), item, behaviours_of(SEQUENCES))
    expected = torch.stack([by_hand(unit, t, item[SEQUENCES[p]]) for t, p in zip(target, PAGE, strict=True)])
    torch.testing.assert_close(found, expected)
    assert not found[2].any()  # a page without behaviours


def test_weights_are_no_softmax_so_twice_the_behaviours_is_twice_the_interest(unit: ActivationUnit) -> None:
    target, item, page = torch.randn(1, DIM), torch.randn(8, DIM), places_of([0], 1)
    once = unit(target, page, item, behaviours_of([[3, 5]]))
    twice = unit(target, page, item, behaviours_of([[3, 5, 3, 5]]))
    torch.testing.assert_close(twice, 2 * once)


def test_no_targets_and_no_behaviours_leave_gradients_of_0(unit: ActivationUnit) -> None:
    item = torch.randn(8, DIM)
    for target, page in ((torch.randn(0, DIM), []), (torch.randn(6, DIM), PAGE)):
        unit.zero_grad()
        unit(target, places_of(page, 4), item, behaviours_of([[]] * 4)).sum().backward()
        assert all(p.grad is not None and not p.grad.any() for p in unit.parameters())


def test_dice_gets_its_moments_of_the_pairs_alone_and_not_of_the_padding() -> None:
    torch.manual_seed(0)
    unit = ActivationUnit(DIM, HIDDEN, activation="dice")
    target, item = torch.randn(6, DIM), torch.randn(8, DIM)
    unit(target, places_of(PAGE, 4), item, behaviours_of(SEQUENCES))
    first = torch.cat([unit.of_behaviour.weight, unit.of_target.weight, unit.of_product.weight], 1)
    pairs = [
        torch.cat([item[b], t, unit.gain * item[b] * t])
        for t, p in zip(target, PAGE, strict=True)
        for b in SEQUENCES[p]
    ]
    hidden = torch.stack(pairs) @ first.T + unit.of_target.bias
    assert isinstance(unit.activation, Dice)
    torch.testing.assert_close(unit.activation.mean, unit.activation.momentum * hidden.mean(0))
