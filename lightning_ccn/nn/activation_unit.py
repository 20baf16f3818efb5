"""DIN's activation unit: a sum of behaviours, each weighted by how it bears on the target."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding as gather

from lightning_ccn.nn.dice import Dice

Activation = Literal["prelu", "dice"]


class ActivationUnit(nn.Module):
    """sum_j a(e_j, e_target) e_j over the behaviours of the target's page (DIN, Eq. 3).

    The weight a is an MLP of behaviour, target and their product. It is no softmax: many matching behaviours give a
    long sum, few a short one, which is the strength of the interest. DIN's code adds the difference of the two; to a
    linear layer that already sees both it is nothing new.

    The first layer is a sum of one term each of the behaviour, the target and the product: the first is computed once
    for each distinct item of the batch, the second once for each target, and only the third for each pair.

    Args:
        dim: of an item's embedding.
        hidden: width of the hidden layer, 36 in the paper.
        activation: of the hidden layer.
        gain: of the product. Embeddings start at +-0.05, their product near 0.001: without a gain the weights would
            for long not tell one behaviour from another.
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
        """The weighted sums.

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
        of_pair = torch.repeat_interleave(lengths)  # [pairs], the target
        place = torch.arange(of_pair.numel(), device=page.device) - (lengths.cumsum(0) - lengths)[of_pair]
        in_pair = behaviour[starts[page][of_pair] + place]  # [pairs], the behaviour
        embedded = gather(in_pair, item)  # [pairs, dim]
        hidden = (
            gather(of_pair, self.of_target(target))
            + gather(in_pair, self.of_behaviour(item))
            + self.of_product(self.gain * embedded * gather(of_pair, target))
        )  # [pairs, hidden]
        weighted = self.weight(self.activation(hidden)) * embedded  # [pairs, dim]
        return torch.zeros_like(target).index_add(0, of_pair, weighted)
