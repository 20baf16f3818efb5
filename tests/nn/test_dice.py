"""Dice: what it normalises by, in training and after it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_ccn.nn.dice import Dice


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(50, 3) * torch.tensor([1.0, 5.0, 0.1]) + torch.tensor([0.0, 7.0, -1.0])


def test_in_training_it_bends_where_the_batch_is(x: Tensor) -> None:
    dice = Dice(3)
    torch.nn.init.constant_(dice.alpha, 0.2)
    p = torch.sigmoid((x - x.mean(0)) / x.std(0, correction=0))
    torch.testing.assert_close(dice(x, torch.ones(50)), p * x + (1 - p) * 0.2 * x)


def test_after_training_it_bends_where_the_running_averages_are_whatever_the_batch(x: Tensor) -> None:
    dice = Dice(3, momentum=0.1)
    for _ in range(100):
        dice(x, torch.ones(50))
    dice.eval()
    torch.testing.assert_close(dice.mean, x.mean(0), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(dice.variance, x.var(0, correction=0), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(dice(x, torch.ones(50))[:1], dice(x[:1], torch.ones(1)))
    assert set(dice.state_dict()) == {"alpha", "mean", "variance"}


def test_an_empty_batch_moves_no_average() -> None:
    dice = Dice(3)
    out = dice(torch.zeros(0, 3), torch.zeros(0))
    out.sum().backward()
    assert out.shape == (0, 3)
    assert dice.alpha.grad is not None
    assert torch.equal(dice.variance, torch.ones(3))
    assert torch.equal(dice.mean, torch.zeros(3))


def test_padding_has_no_part_in_the_moments(x: Tensor) -> None:
    dice, padded_dice = Dice(3), Dice(3)
    padded, counted = torch.cat([x, torch.full((9, 3), 1e3)]), torch.ones(59)
    counted[50:] = 0
    torch.testing.assert_close(padded_dice(padded, counted)[:50], dice(x, torch.ones(50)))
    torch.testing.assert_close(padded_dice.mean, dice.mean)
