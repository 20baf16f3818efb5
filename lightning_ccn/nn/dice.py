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

    Shape: float [rows, C] -> float [rows, C].
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, momentum: float = 0.01) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.momentum, self.eps = momentum, 1e-8
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """float [rows, C]."""
        mean, variance = self._moments(x.detach().float()) if self.training else (self.mean, self.variance)
        p = torch.sigmoid((x - mean) * (variance + self.eps).rsqrt())
        return p * x + (1 - p) * self.alpha * x

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance [C] of the global batch; updates the running averages."""
        sums = torch.cat([x.sum(0), x.square().sum(0), x.new_tensor([len(x)])])
        if dist.is_initialized():
            dist.all_reduce(sums)
        if sums[-1] == 0:
            return self.mean, self.variance
        mean, square = (sums[:-1] / sums[-1]).chunk(2)
        variance = (square - mean.square()).clamp(min=0)
        self.mean.lerp_(mean, self.momentum)
        self.variance.lerp_(variance, self.momentum)
        return mean, variance
