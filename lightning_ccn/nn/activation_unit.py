"""DIN's activation unit: a sum of behaviours, each weighted by its relevance to the target."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding as gather

from lightning_ccn.nn.dice import Dice

Activation = Literal["prelu", "dice"]


class ActivationUnit(nn.Module):
    """sum_j a(e_j, e_target) e_j over the behaviours of the target's page (DIN, Eq. 3).

    The weight a is an MLP of behaviour, target and their product. It is not a softmax: many matching behaviours give a
    large sum, which expresses a strong interest. (DIN's code also feeds the difference of the two, which adds nothing
    to a linear layer that sees both.)

    The first layer is linear, so it splits into three terms: the behaviour's is computed once per distinct item of the
    batch, the target's once per target, and only the product's once per (target, behaviour) pair.

    Args:
        dim: Width of an item's embedding.
        hidden: Width of the hidden layer, 36 in the paper.
        activation: Activation of the hidden layer.
        gain: Factor on the product. Embeddings start within +-0.05 and their product near 0.001; without a gain, the
            weights would not distinguish behaviours for a long time.
    """

    def __init__(self, dim: int, hidden: int = 36, activation: Activation = "prelu", gain: float = 20.0) -> None:
        super().__init__()
        self.of_target = nn.Linear(dim, hidden)
        self.of_behaviour = nn.Linear(dim, hidden, bias=False)
        self.of_product = nn.Linear(dim, hidden, bias=False)
        self.activation = nn.PReLU(hidden) if activation == "prelu" else Dice(hidden)
        self.weight = nn.Linear(hidden, 1)
        self.gain = gain

    def forward(
        self, target: Tensor, page: Tensor, item: Tensor, behaviour: Tensor, behaviour_lengths: Tensor
    ) -> Tensor:
        """Sums the behaviours of each target's page, weighted for that target.

        Args:
            target: float [items, dim].
            page: int64 [items].
            item: float [distinct, dim], the batch's distinct items.
            behaviour: int64 [behaviours], index into the distinct items, page-major.
            behaviour_lengths: int64 [pages].

        Returns:
            float [items, dim]; zeros where the page has no behaviours.
        """
        starts = behaviour_lengths.cumsum(0) - behaviour_lengths  # [pages]
        lengths = behaviour_lengths[page]  # [items]
        of_pair = torch.repeat_interleave(lengths)  # [pairs], the target's index
        place = torch.arange(of_pair.numel(), device=page.device) - (lengths.cumsum(0) - lengths)[of_pair]
        in_pair = behaviour[starts[page][of_pair] + place]  # [pairs], the behaviour's index
        embedded = gather(in_pair, item)  # [pairs, dim]
        hidden = (
            gather(of_pair, self.of_target(target))
            + gather(in_pair, self.of_behaviour(item))
            + self.of_product(self.gain * embedded * gather(of_pair, target))
        )  # [pairs, hidden]
        weighted = self.weight(self.activation(hidden)) * embedded  # [pairs, dim]
        return torch.zeros_like(target).index_add(0, of_pair, weighted)
