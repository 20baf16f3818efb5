"""Dice: a PReLU whose bend adapts to the data (DIN, section 5.3)."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Dice(nn.Module):
    """f(x) = p(x) x + (1 - p(x)) alpha x, p(x) = sigmoid((x - mean) / sqrt(variance + eps)), channel by channel.

    Mean and variance come from the batch in training and from running averages otherwise; the gradient treats them as
    constants. With several ranks, they are those of the global batch, so all ranks keep the same averages and the
    world size does not change what is learned. Every rank must call it equally often, with empty batches too.

    Args:
        channels: C.
        momentum: Momentum of the running averages.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, momentum: float = 0.01) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.momentum, self.eps = momentum, 1e-8
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor, counted: Tensor) -> Tensor:
        """Applies f.

        Args:
            x: float [rows, C].
            counted: float [rows], 1 for rows of data and 0 for padding, which has no part in the moments.

        Returns:
            float [rows, C].
        """
        mean, variance = self._moments(x.detach().float(), counted) if self.training else (self.mean, self.variance)
        p = torch.sigmoid((x - mean) * (variance + self.eps).rsqrt())
        return p * x + (1 - p) * self.alpha * x

    def _moments(self, x: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance [C] of the global batch; updates the running averages. Never waits for a GPU."""
        data = x * counted[:, None]
        sums = torch.cat([data.sum(0), (data * x).sum(0), counted.sum()[None]])
        if dist.is_initialized():
            dist.all_reduce(sums)
        rows = sums[-1:]
        mean, square = (sums[:-1] / rows.clamp(min=1)).chunk(2)
        empty = rows == 0  # no rank has a row: the averages stay
        mean = torch.where(empty, self.mean, mean)
        variance = torch.where(empty, self.variance, (square - mean.square()).clamp(min=0))
        self.mean.lerp_(mean, self.momentum)
        self.variance.lerp_(variance, self.momentum)
        return mean, variance
