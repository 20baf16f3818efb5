"""A training step without a framework: the same model, batches and optimizers, and a plain loop."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import Optimizer

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.models.system import Prediction, System


def copies(batches: Sequence[PageBatch], count: int) -> list[PageBatch]:
    """`count` batches as they come from the reader: without what a step has worked out of them and kept."""
    chosen = [batches[number % len(batches)] for number in range(count)]
    return [batch.with_tensors(batch.tensors()) for batch in chosen]


def loss_of(system: System, prediction: Prediction, batch: PageBatch) -> Tensor:
    """Cross entropy of the clicks, and the system's auxiliary losses."""
    assert batch.clicks is not None
    loss = binary_cross_entropy_with_logits(prediction.logit, batch.clicks)
    for value, weight in system.auxiliary_losses(prediction, batch).values():
        loss = loss + weight * value
    return loss


def steps(system: System, optimizer: Optimizer, batches: Sequence[PageBatch]) -> None:
    """Trains on the batches; the tables' optimizer runs within the backward pass."""
    for batch in batches:
        loss = loss_of(system, system(batch), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
