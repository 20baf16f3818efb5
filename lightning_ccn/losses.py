"""The training loss of a batch: cross entropy of the clicks, plus what a system adds over each page's context."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.evaluation.item_means import degree_sums
from lightning_ccn.models.system import Prediction, System
from lightning_ccn.nn.listwise import listwise_softmax_loss
from lightning_ccn.nn.order_head import order_loss
from lightning_ccn.nn.pairwise import pairwise_loss

AUXILIARY_FALL = 0.25  # share of the training steps


class LossWeights(NamedTuple):
    """Weights of the losses that any system can have beside that of its clicks; 0: the loss is not computed.

    Attributes:
        listwise: Of `nn.listwise`, a softmax over each page.
        pairwise: Of `nn.pairwise`, the pairs of a clicked and an unclicked item of a page.
        order: Of `nn.order_head`, the cross entropy of p(order) and the orders.
    """

    listwise: float = 0.0
    pairwise: float = 0.0
    order: float = 0.0


@dataclass
class Losses:
    """The losses of a rank's batch.

    Attributes:
        terms: `loss`, and what it is made of; scalars.
        values: float [terms], the same without gradients.
        degrees: What `degree_sums` returns; None for a system without a collaborative degree.
    """

    terms: dict[str, Tensor]
    values: Tensor
    degrees: Tensor | None


class PositionBias(nn.Module):
    """A bias for each position on a page: what is shown first is seen more often, whatever it is.

    It is added to the logit in training. A score leaves it out, so it is a score at no position in particular. (Zhao et
    al. 2019, the shallow tower, here of the position alone.)

    Args:
        positions: Number of positions with a bias of their own.
    """

    def __init__(self, positions: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(positions))

    def forward(self, position: Tensor) -> Tensor:
        """float [items] for int64 [items]."""
        return self.bias.index_select(0, position)


def auxiliary_factor(start: float, step: int, steps: float) -> float:
    """What a system's auxiliary losses are multiplied by: it falls linearly to 1 over the first quarter of the steps.

    Args:
        start: The factor of the first step.
        step: Number of training steps so far.
        steps: Number of training steps in all.

    >>> [auxiliary_factor(9.0, step, 400) for step in (0, 50, 100, 399)]
    [9.0, 5.0, 1.0, 1.0]
    """
    return 1 + (start - 1) * max(0.0, 1 - step / (AUXILIARY_FALL * steps))


def batch_losses(
    system: System,
    position_bias: PositionBias | None,
    weights: LossWeights,
    prediction: Prediction,
    batch: PageBatch,
    auxiliary: Tensor | float = 1.0,
) -> Losses:
    """The losses, means over the batch's items.

    Args:
        system: The system that made the prediction.
        position_bias: What the position adds to the logit, if the data says so.
        weights: Weights of the losses beside that of the clicks.
        prediction: The system's answer for the batch.
        batch: The batch, with clicks; with orders, if their loss has a weight.
        auxiliary: Factor on the weights of the system's auxiliary losses.
    """
    assert batch.clicks is not None
    logit = prediction.logit.float()
    if position_bias is not None:
        assert batch.position is not None
        logit = logit + position_bias(batch.position)
    ce = binary_cross_entropy_with_logits(logit, batch.clicks, weight=batch.weight, reduction="sum")
    terms = {"ce": ce / max(batch.items, 1)}
    loss = terms["ce"]
    for name, (value, weight) in system.auxiliary_losses(replace(prediction, logit=logit), batch).items():
        terms[name] = value
        loss = loss + (auxiliary * weight) * value
    if weights.listwise:
        terms["listwise"] = listwise_softmax_loss(logit, batch.clicks, batch.page_lengths)
        loss = loss + weights.listwise * terms["listwise"]
    if weights.pairwise:
        terms["pairwise"] = pairwise_loss(logit, batch.clicks, batch.of_page)
        loss = loss + weights.pairwise * terms["pairwise"]
    if weights.order:
        assert prediction.conversion is not None
        assert batch.orders is not None
        terms["order"] = order_loss(logit, prediction.conversion, batch.orders, batch.weight)
        loss = loss + weights.order * terms["order"]
    terms["loss"] = loss
    degrees = None if prediction.degree is None else degree_sums(prediction.degree, batch.clicks)
    return Losses(terms, torch.stack([*terms.values()]).detach(), degrees)
