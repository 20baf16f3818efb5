"""DIN's activation unit: a sum of behaviours, each weighted by its relevance to the target."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_ccn.data.padding import PaddedBehaviours, Places
from lightning_ccn.nn.dice import Dice
from lightning_ccn.nn.gather import gather_padded

Activation = Literal["prelu", "dice"]


class ActivationUnit(nn.Module):
    """sum_j a(e_j, e_target) e_j over the behaviours of the target's page (DIN, Eq. 3).

    The weight a is an MLP of behaviour, target and their product. It is not a softmax: many matching behaviours give a
    large sum, which expresses a strong interest. (DIN's code also feeds the difference of the two, which adds nothing
    to a linear layer that sees both.)

    The first layer is linear: for a given target, it is a matrix of its own for the behaviours, plus a constant. So all
    targets of a page are one product with the page's behaviours.

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
        self.activation: nn.PReLU | Dice = nn.PReLU(hidden) if activation == "prelu" else Dice(hidden)
        self.weight = nn.Linear(hidden, 1)
        self.gain = gain

    def forward(self, target: Tensor, places: Places, item: Tensor, behaviours: PaddedBehaviours) -> Tensor:
        """Sums the behaviours of each target's page, weighted for that target.

        Args:
            target: float [items, dim].
            places: The page of each target.
            item: float [distinct, dim], the batch's distinct items.
            behaviours: The behaviours of each page.

        Returns:
            float [items, dim]; zeros where the page has no behaviours.
        """
        targets = places.pad(target)  # [pages, T, dim]
        sequence = gather_padded(behaviours.index, item)  # [pages, B, dim]
        scaled = self.gain * targets
        # W (behaviour * target) = (W * target) behaviour: one product per page, and no row per pair
        of_each = torch.addcmul(self.of_behaviour.weight, scaled[:, :, None], self.of_product.weight)
        of_target = self.of_target(targets)  # [pages, T, hidden]
        hidden = torch.baddbmm(of_target.flatten(1)[:, :, None], of_each.flatten(1, 2), sequence.mT)
        hidden = hidden.view(-1, of_target.shape[2], sequence.shape[1])  # [pages * T, hidden, B]
        if isinstance(self.activation, Dice):
            pairs = self._are_pairs(places, behaviours)  # [pages, T, B]
            weight = self.weight(self.activation(hidden.mT.flatten(0, 1), pairs.flatten())).view_as(pairs)
        else:
            weight = self._after_prelu(self.activation.weight, hidden, sequence, scaled, of_target)
        return places.unpad((weight * behaviours.seen[:, None]) @ sequence)

    def _after_prelu(
        self, slope: Tensor, hidden: Tensor, sequence: Tensor, scaled: Tensor, of_target: Tensor
    ) -> Tensor:
        """The weights, float [pages, T, B].

        PReLU with slope s is s x + (1 - s) relu(x). The part that is linear in x is a product of target and behaviour,
        without the hidden layer; what is left of the hidden layer is a ReLU, whose backward pass is short.
        """
        last = self.weight.weight[0]  # [hidden]
        bent = torch.bmm(((1 - slope) * last).expand(hidden.shape[0], 1, -1), hidden.relu_())  # [pages * T, 1, B]
        straight = slope * last
        of_behaviour = torch.addcmul(straight @ self.of_behaviour.weight, scaled, straight @ self.of_product.weight)
        of_target = (of_target @ straight + self.weight.bias)[:, :, None]  # [pages, T, 1]
        return torch.baddbmm(of_target, of_behaviour, sequence.mT) + bent.view(*scaled.shape[:2], -1)

    def _are_pairs(self, places: Places, behaviours: PaddedBehaviours) -> Tensor:
        is_target = places.pad(behaviours.filled.new_ones(places.rows, 1))  # [pages, T, 1]
        return is_target * behaviours.seen[:, None]
