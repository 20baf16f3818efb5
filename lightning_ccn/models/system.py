"""What a system is to the code that trains it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from lightning_ccn.data.batch import PageBatch


@dataclass
class Prediction:
    """A system's answer for every exposed item.

    Attributes:
        logit: float [items], of the click probability.
        degree: float [items], the collaborative degree; None in a system without one.
    """

    logit: Tensor
    degree: Tensor | None = None


class System(Protocol):
    """A CTR model over page views: an `nn.Module` with these two."""

    def __call__(self, batch: PageBatch) -> Prediction:
        """Scores every exposed item from the page and the item alone: no label, no context."""
        ...

    def auxiliary_losses(self, prediction: Prediction, batch: PageBatch) -> dict[str, tuple[Tensor, float]]:
        """Losses beside the cross entropy, by name: (mean over the batch's items, weight). Training only."""
        ...
