"""The layers' AdaGrad against torch's."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Adagrad

from lightning_ccn.nn.dense_adagrad import DenseAdagrad


def test_weights_and_state_are_those_of_torch_to_the_bit() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1), nn.Linear(1, 1))
    twin = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1), nn.Linear(1, 1))
    twin.load_state_dict(layers.state_dict())
    ours = DenseAdagrad(layers.parameters(), 0.1, 1e-3)
    torchs = Adagrad(twin.parameters(), 0.1, initial_accumulator_value=1e-3, foreach=True)
    for step in range(4):
        x = torch.randn(8, 5)
        for model, optimizer in ((layers, ours), (twin, torchs)):
            optimizer.zero_grad()
            model[:3](x).square().mean().backward()  # the last layer has no gradient
            optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
            optimizer.step()
    torch.testing.assert_close(layers.state_dict(), twin.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(ours.state_dict(), torchs.state_dict(), rtol=0, atol=0)


def test_a_closure_is_run_with_gradients() -> None:
    weight = nn.Parameter(torch.ones(1))
    optimizer = DenseAdagrad([weight], 0.5, 0.0)

    def closure() -> float:
        loss = (3 * weight).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 3
    assert weight.item() == 0.5
