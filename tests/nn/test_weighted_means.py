"""Means weighted by a softmax, against autograd's way through the same formula."""

from __future__ import annotations

import pytest
import torch

from lightning_ccn.nn.weighted_means import weighted_means

SEGMENTS, HEADS, LONGEST, DIM = 5, 2, 7, 4


def inputs(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, items and a bias that leaves items out of each segment but the last."""
    torch.manual_seed(0)
    queries = torch.randn(SEGMENTS, HEADS, DIM, dtype=dtype, requires_grad=True)
    items = torch.randn(SEGMENTS, LONGEST, DIM, dtype=dtype, requires_grad=True)
    seen = torch.arange(LONGEST) < torch.tensor([1, 3, 6, 2, LONGEST])[:, None]
    return queries, items, torch.where(seen, 0.0, -torch.inf).to(dtype)[:, None]


def test_values_are_softmax_of_the_logits_times_the_items() -> None:
    queries, items, bias = inputs()
    expected = torch.stack([(q @ i.T + b).softmax(1) @ i for q, i, b in zip(queries, items, bias, strict=True)])
    torch.testing.assert_close(weighted_means(queries, items, bias), expected)
    with torch.no_grad():
        torch.testing.assert_close(weighted_means(queries, items, bias), expected)


def test_gradients_are_those_of_finite_differences() -> None:
    queries, items, bias = inputs()
    assert torch.autograd.gradcheck(lambda q, i: weighted_means(q, i, bias), (queries, items))


@pytest.mark.parametrize("which", [0, 1])
def test_a_gradient_of_one_input_alone(which: int) -> None:
    queries, items, bias = inputs()
    both = torch.autograd.grad(weighted_means(queries, items, bias).square().sum(), [queries, items])
    inputs_alone = queries.detach(), items.detach()
    inputs_alone[which].requires_grad_()
    of_alone = weighted_means(inputs_alone[0], inputs_alone[1], bias).square().sum()
    (alone,) = torch.autograd.grad(of_alone, [inputs_alone[which]])
    torch.testing.assert_close(alone, both[which])


def test_half_precision_trains() -> None:
    queries, items, bias = inputs(torch.float32)
    exact = torch.autograd.grad(weighted_means(queries, items, bias).sum(), [queries, items])
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(weighted_means(queries, items, bias).float().sum(), [queries, items])
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one, other, atol=0.1, rtol=0.1)
