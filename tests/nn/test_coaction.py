"""CRRN's gated interaction of target and trigger."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_ccn.nn.coaction import CoActionGate

DIM, FEATURES = 8, 3
PAGE = torch.tensor([0, 0, 1, 1, 1])
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture
def inputs() -> Inputs:
    torch.manual_seed(0)
    return torch.rand(5, FEATURES).round(), torch.randn(5, DIM), torch.randn(2, DIM), PAGE


@pytest.fixture
def gate(inputs: Inputs) -> CoActionGate:
    return CoActionGate(FEATURES, DIM, gain=2.0)


def test_it_is_a_gated_product_of_target_and_trigger(gate: CoActionGate, inputs: Inputs) -> None:
    common, target, trigger, page = inputs
    expected = torch.sigmoid(gate.gate(common)) * 2.0 * target * trigger[page]
    torch.testing.assert_close(gate(*inputs), expected)


def test_a_closed_gate_lets_nothing_through(gate: CoActionGate, inputs: Inputs) -> None:
    last = gate.gate[-1]
    assert isinstance(last, nn.Linear)
    nn.init.constant_(last.bias, -1e4)
    assert not gate(*inputs).any()


def test_the_order_of_the_features_is_that_of_the_weights(gate: CoActionGate, inputs: Inputs) -> None:
    before = gate(*inputs)
    order = [2, 0, 1]
    first = gate.gate[0]
    assert isinstance(first, nn.Linear)
    with torch.no_grad():
        first.weight.copy_(first.weight[:, order])
    common, *others = inputs
    torch.testing.assert_close(gate(common[:, order], *others), before)
    assert not torch.allclose(gate(common, *others), before)


def test_without_features_the_gate_is_a_constant_that_is_learned(inputs: Inputs) -> None:
    gate, (_, target, trigger, page) = CoActionGate(0, DIM), inputs
    found = gate(torch.zeros(5, 0), target, trigger, page)
    ratio = found / (target * trigger[page])
    torch.testing.assert_close(ratio, ratio[:1].expand(5, DIM))
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in gate.parameters())
