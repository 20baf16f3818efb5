"""DIN's activation unit against one target at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_ccn.nn.activation_unit import ActivationUnit

DIM, HIDDEN = 6, 5
PAGE = torch.tensor([0, 0, 2, 3, 3, 3])
BEHAVIOUR, LENGTHS = torch.tensor([4, 1, 4, 0, 7, 2]), torch.tensor([3, 2, 0, 1])


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
    found = unit(target, PAGE, item, BEHAVIOUR, LENGTHS)
    sequences = BEHAVIOUR.split(LENGTHS.tolist())
    expected = torch.stack([by_hand(unit, t, item[sequences[p]]) for t, p in zip(target, PAGE, strict=True)])
    torch.testing.assert_close(found, expected)
    assert not found[2].any()  # a page without behaviours


def test_weights_are_no_softmax_so_twice_the_behaviours_is_twice_the_interest(unit: ActivationUnit) -> None:
    target, item, page = torch.randn(1, DIM), torch.randn(8, DIM), torch.tensor([0])
    once = unit(target, page, item, torch.tensor([3, 5]), torch.tensor([2]))
    twice = unit(target, page, item, torch.tensor([3, 5, 3, 5]), torch.tensor([4]))
    torch.testing.assert_close(twice, 2 * once)


def test_no_targets_and_no_behaviours_leave_gradients_of_0(unit: ActivationUnit) -> None:
    item = torch.randn(8, DIM)
    for target, page in ((torch.randn(0, DIM), PAGE[:0]), (torch.randn(6, DIM), PAGE)):
        unit.zero_grad()
        unit(target, page, item, BEHAVIOUR[:0], torch.zeros(4, dtype=torch.int64)).sum().backward()
        assert all(p.grad is not None and not p.grad.any() for p in unit.parameters())
