"""The mean of a behaviour sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_ccn.data.padding import PaddedBehaviours
from lightning_ccn.nn.gather import gather_padded


def sequence_mean(item: Tensor, behaviours: PaddedBehaviours) -> Tensor:
    """The mean of each segment's behaviours.

    Args:
        item: float [distinct, dim], the batch's distinct items.
        behaviours: The behaviours of each segment.

    Returns:
        float [segments, dim]; zeros where the segment has no behaviours.
    """
    share = behaviours.seen / behaviours.seen.sum(1, keepdim=True).clamp(min=1)  # [segments, longest]
    return torch.bmm(share[:, None], gather_padded(behaviours.index, item)).squeeze(1)
