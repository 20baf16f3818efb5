"""The listwise loss against a page at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_ccn.nn.listwise import listwise_softmax_loss

LENGTHS = torch.tensor([4, 0, 1, 3, 2, 1])
CLICK = torch.tensor([1, 0, 1, 0, 1, 0, 0, 0, 1, 1, 0])  # two of four, the only one, none, all, none


def by_hand(logit: Tensor, clicks: Tensor, temperature: float) -> Tensor:
    total = logit.new_zeros(())
    for page, y in zip(logit.split(LENGTHS.tolist()), clicks.double().split(LENGTHS.tolist()), strict=True):
        if y.sum() > 0:
            total = total - (y / y.sum() * torch.log_softmax(page / temperature, 0)).sum()
    return total / len(logit)


@pytest.fixture
def logit() -> Tensor:
    torch.manual_seed(0)
    return (3 * torch.randn(11, dtype=torch.float64)).requires_grad_()


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_value_and_gradient_are_those_of_a_loop_over_pages(logit: Tensor, temperature: float) -> None:
    found = listwise_softmax_loss(logit, CLICK, LENGTHS, temperature=temperature)
    expected = by_hand(logit, CLICK, temperature)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logit)[0] for loss in (found, expected)))


def test_gradcheck(logit: Tensor) -> None:
    assert torch.autograd.gradcheck(lambda x: listwise_softmax_loss(x, CLICK, LENGTHS, temperature=0.5), (logit,))


def test_a_shift_of_a_pages_logits_changes_nothing(logit: Tensor) -> None:
    shift = torch.tensor([7.0, 0, -3, 2, -9, 1], dtype=torch.float64)
    shifted = logit + shift.repeat_interleave(LENGTHS)
    torch.testing.assert_close(
        listwise_softmax_loss(shifted, CLICK, LENGTHS), listwise_softmax_loss(logit, CLICK, LENGTHS)
    )


def test_pages_without_a_click_contribute_nothing(logit: Tensor) -> None:
    loss = listwise_softmax_loss(logit, torch.zeros(11), LENGTHS)
    loss.backward()
    assert loss.item() == 0
    assert logit.grad is not None
    assert not logit.grad.any()


def test_extreme_logits_stay_finite_in_float32() -> None:
    logit = torch.tensor([1e4, -1e4, 0.0, 3e4], requires_grad=True)
    loss = listwise_softmax_loss(logit, torch.tensor([0, 1, 0, 0]), torch.tensor([3, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(2e4 / 4)
    assert logit.grad is not None
    assert logit.grad.isfinite().all()


def test_a_batch_without_items_has_loss_0_in_the_graph() -> None:
    logit = torch.zeros(0, requires_grad=True)
    loss = listwise_softmax_loss(logit, torch.zeros(0), torch.tensor([0]))
    loss.backward()
    assert loss.item() == 0
    assert logit.grad is not None


def test_bf16_logits_are_worked_on_in_float32(logit: Tensor) -> None:
    rounded = logit.detach().bfloat16()
    found = listwise_softmax_loss(rounded, CLICK, LENGTHS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, listwise_softmax_loss(rounded.float(), CLICK, LENGTHS))


def test_a_temperature_of_0_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature is 0"):
        listwise_softmax_loss(torch.zeros(1), torch.zeros(1), torch.tensor([1]), temperature=0)
