"""What follows a system's lookups is compiled once, for batches of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.reader import PageBatches
from tests.models.pages import SYSTEMS, loss


@pytest.fixture
def graphs() -> Iterator[list[torch.fx.GraphModule]]:
    """The graphs that a test traces with `keep`."""
    torch.compiler.reset()
    yield []
    torch.compiler.reset()


def keep(
    graphs: list[torch.fx.GraphModule], graph: torch.fx.GraphModule, inputs: list[Tensor]
) -> Callable[..., object]:
    """A compiler that writes no kernels."""
    graphs.append(graph)
    return graph.forward


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("crrn", "dei2n")]


@pytest.mark.parametrize("name", ["ccn", "din_with_dice", "wide_deep", *SLOW])
def test_a_compiled_system_has_the_same_loss_and_gradients_and_is_compiled_once(
    name: str, dataset: Path, graphs: list[torch.fx.GraphModule]
) -> None:
    pages = PageBatches(Dataset.open(dataset), "train", batch_pages=24, short_length=5, long_length=4, with_gaps=True)
    torch.manual_seed(0)
    system = SYSTEMS[name](pages.dataset, dim=8)
    compiled = torch.compile(partial(loss, system), dynamic=True, backend=partial(keep, graphs))
    for step in range(3):
        expected, found = loss(system, pages[0, step]), compiled(pages[0, step])
        assert torch.allclose(found, expected, rtol=1e-5)
        gradients = [
            torch.autograd.grad(value, [*system.parameters()], allow_unused=True) for value in (found, expected)
        ]
        for one, other in zip(*gradients, strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.allclose(one, other, rtol=1e-4, atol=1e-7)
        if step == 0:
            first = len(graphs)
    assert 1 <= first <= 3  # the lookups are between them
    assert len(graphs) == first
