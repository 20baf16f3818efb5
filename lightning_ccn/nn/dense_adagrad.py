"""AdaGrad for a model's layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Adagrad
from torch.optim.adagrad import adagrad


class DenseAdagrad(Adagrad):
    """torch's AdaGrad with its arithmetic and its state, and a step without bookkeeping for each parameter.

    A model has a few dozen small layers, and torch looks at each of them several times a step. That takes longer than
    the arithmetic.

    Args:
        params: The parameters; all of one device and one type, with dense gradients.
        lr: Learning rate.
        initial_accumulator_value: What each weight's sum of squared gradients starts at.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, initial_accumulator_value: float) -> None:
        super().__init__(params, lr, initial_accumulator_value=initial_accumulator_value, foreach=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Updates every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            with_gradient = [(p, gradient) for p in group["params"] if (gradient := p.grad) is not None]
            if not with_gradient:
                continue
            parameters, gradients = ([*column] for column in zip(*with_gradient, strict=True))
            states = [self.state[p] for p in parameters]
            adagrad(
                parameters,
                gradients,
                [state["sum"] for state in states],
                [state["step"] for state in states],
                foreach=True,
                lr=group["lr"],
                weight_decay=0.0,
                lr_decay=0.0,
                eps=group["eps"],
                maximize=False,
            )
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients, or sets them to 0."""
        if not set_to_none:
            super().zero_grad(set_to_none=False)
        else:
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
