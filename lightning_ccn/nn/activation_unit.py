"""DIN's activation unit: a sum of behaviours, each weighted by its relevance to the target."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import embedding as gather

from lightning_ccn.data.padding import PaddedBehaviours, Places
from lightning_ccn.nn.dice import Dice

Activation = Literal["prelu", "dice"]


class ActivationUnit(nn.Module):
    """sum_j a(e_j, e_target) e_j over the behaviours of the target's page (DIN, Eq. 3).

    The weight a is an MLP of behaviour, target and their product. It is not a softmax: many matching behaviours give a
    large sum, which expresses a strong interest. (DIN's code also feeds the difference of the two, which adds nothing
    to a linear layer that sees both.)

    The first layer is linear, so it splits into three terms: the behaviour's is computed once per distinct item of the
    batch, the target's once per target, and only the product's for each (target, behaviour) pair.

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
        sequence = gather(behaviours.index, item)  # [pages, B, dim]
        # W (behaviour * target) = (W * target) behaviour: one product per page, and no row per pair
        of_each = (self.gain * targets)[:, :, None] * self.of_product.weight  # [pages, T, hidden, dim]
        product = sequence @ of_each.flatten(1, 2).transpose(1, 2)  # [pages, B, T * hidden]
        hidden = (
            product.unflatten(2, of_each.shape[1:3])
            + self.of_target(targets)[:, None]
            + gather(behaviours.index, self.of_behaviour(item))[:, :, None]
        )  # [pages, B, T, hidden]
        seen = behaviours.seen[:, :, None]  # [pages, B, 1]
        weight = self.weight(self._activated(hidden, seen, places)).squeeze(3) * seen  # [pages, B, T]
        return places.unpad(weight.transpose(1, 2) @ sequence)

    def _activated(self, hidden: Tensor, seen: Tensor, places: Places) -> Tensor:
        if not isinstance(self.activation, Dice):
            activated: Tensor = self.activation(hidden.flatten(0, 2))
        else:
            is_target = places.pad(hidden.new_ones(places.rows, 1)).transpose(1, 2)  # [pages, 1, T]
            activated = self.activation(hidden.flatten(0, 2), (seen * is_target).flatten())
        return activated.view_as(hidden)
