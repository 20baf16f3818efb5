"""What a system is to the code that trains it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.dataset import Dataset


@dataclass
class Prediction:
    """A system's answer for every exposed item.

    Attributes:
        logit: float [items], of the click probability.
        degree: float [items], the collaborative degree; None in a system without one.
        intent: float [pages], logit of the probability that the user entered for the trigger; None in a system that
            does not estimate it. `nn.intent.intent_label` is what it is measured against.
    """

    logit: Tensor
    degree: Tensor | None = None
    intent: Tensor | None = None


class System(Protocol):
    """A CTR model over page views: an `nn.Module` with these two."""

    def __call__(self, batch: PageBatch) -> Prediction:
        """ScoreCollector every exposed item from the page and the item alone: no label, no context."""
        ...

    def auxiliary_losses(self, prediction: Prediction, batch: PageBatch) -> dict[str, tuple[Tensor, float]]:
        """Losses beside the cross entropy, by name: (mean over the batch's items, weight). Training only."""
        ...


def warn_of_missing_inputs(system: object, dataset: Dataset, **otherwise: str) -> None:
    """Warns of what a system would use and this data lacks.

    Args:
        system: that warns.
        dataset: the data.
        otherwise: what the system does without it, by the name of what may be lacking: `profile`, `category`, or one
            of `SplitStats.missing_inputs`.
    """
    schema = dataset.schema
    lacks = {name: f"the training split has {words}" for name, words in dataset.splits["train"].missing_inputs.items()}
    if all(feature.many for feature in schema.user):
        lacks["profile"] = "the dataset has no profile feature of one value"
    if schema.category is None:
        lacks["category"] = "the dataset has no category"
    for name, words in otherwise.items():
        if name in lacks:
            rank_zero_warn(f"{type(system).__name__}: {lacks[name]}; {words}")
