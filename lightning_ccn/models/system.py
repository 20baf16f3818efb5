"""`System`, the base class of every CTR model here, and `Prediction`, its answer."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.nn.order_head import order_logit


@dataclass
class Prediction:
    """A system's answer for every exposed item of a batch.

    Attributes:
        logit: Float [items], the logit of the click probability.
        degree: Float [items], the collaborative degree (see `nn.collaborative`); None in a system without one.
        intent: Float [pages], the logit of the probability that the user entered because of the trigger; None in a
            system that does not estimate it. `nn.intent.intent_label` is what it is compared with.
        conversion: Float [items], the logit of p(order | click); None without an order head (see `nn.order_head`),
            which is beside the system and not a part of it.
    """

    logit: Tensor
    degree: Tensor | None = None
    intent: Tensor | None = None
    conversion: Tensor | None = None

    @property
    def order_logit(self) -> Tensor | None:
        """The logit of p(order) = p(click) p(order | click): float [items]; None without an order head."""
        return None if self.conversion is None else order_logit(self.logit, self.conversion)


class System(nn.Module):
    """A CTR model over page views.

    A subclass is built from a `Dataset` (its schema and counts) and its own options, and implements `forward`:
    `PageBatch` -> `Prediction`. `forward` scores a target from the page and the target itself. It never reads clicks
    or the page's other items, because neither exists when a target is served.

    A system whose `forward` reads no long behaviours says so with `reads_long = False`, and the reader leaves them out.
    One that reads how long ago behaviours were says `reads_gaps = True`, and the reader reads their times too.

    `lightning_ccn.CTRModule` trains it on the cross entropy of the clicks, plus the losses that `auxiliary_losses`
    returns.

    Attributes:
        auxiliary_start: Factor on the auxiliary losses in the first training step, unless `model.auxiliary_start` is
            set; it falls linearly to 1 over the first quarter of the steps.
        options: The options that the system was built with, defaults included, by name. A checkpoint keeps them, so
            that `ccn export` can build the system again.
    """

    reads_long: ClassVar[bool] = True
    auxiliary_start: ClassVar[float] = 1.0
    reads_gaps: bool = False  # may depend on the options
    options: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Notes the options."""
        system = super().__new__(cls)
        if args or kwargs:  # a copy is made without them, and gets the attribute from the original
            given = inspect.signature(cls.__init__).bind(system, *args, **kwargs)
            given.apply_defaults()
            _, _, *options = given.arguments.items()  # the first two are the system itself and the dataset
            system.options = dict(options)
        return system

    @classmethod
    def default_start(cls, endless: bool) -> float:
        """Factor on the auxiliary losses in the first step where nobody sets it; a run without an end has 1."""
        return 1.0 if endless else cls.auxiliary_start

    def auxiliary_losses(self, prediction: Prediction, batch: PageBatch) -> dict[str, tuple[Tensor, float]]:
        """Training losses on top of the cross entropy: none by default.

        Args:
            prediction: What `forward` returned for this batch, with the positions' biases in its logit, if the data has
                them.
            batch: The batch, with clicks.

        Returns:
            By name, under which it is logged: (the loss's mean over the batch's items, its weight).
        """
        return {}


def warn_of_missing_inputs(system: System, dataset: Dataset, **consequences: str) -> None:
    """Warns about each input that a system uses and this data does not have.

    Args:
        system: The system; its class name is in the warning.
        dataset: The data.
        **consequences: What the system does without an input, by the input's name: `profile`, `category`, or a name
            in `SplitStats.missing_inputs`.
    """
    schema = dataset.schema
    missing = {name: f"the training split has {what}" for name, what in dataset.splits["train"].missing_inputs.items()}
    if all(feature.many for feature in schema.user):
        missing["profile"] = "the dataset has no profile feature of one value"
    if schema.category is None:
        missing["category"] = "the dataset has no category"
    for name, consequence in consequences.items():
        if name in missing:
            rank_zero_warn(f"{type(system).__name__}: {missing[name]}; {consequence}")
