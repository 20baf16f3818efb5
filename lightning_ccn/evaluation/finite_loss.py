"""Stops a training whose loss is not a finite number, without a step that waits for its own loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_ccn.errors import TrainingError


class FiniteLoss:
    """Reads the loss of each step when the next step begins; by then a GPU has computed it.

    A step with a loss that is not finite spoils the weights, but no checkpoint: call `check` before each save.
    """

    def __init__(self) -> None:
        self._pending: _Step | None = None

    def watch(self, names: Sequence[str], values: Tensor, page_id: Tensor, where: str) -> None:
        """Notes a step's loss terms.

        Args:
            names: Names of the terms; one is `loss`.
            values: float [terms].
            page_id: int64 [pages], the batch's pages.
            where: The step, for the message.
        """
        self._pending = _Step(names, values, page_id, where)

    def check(self) -> None:
        """Checks the step noted last, once.

        Raises:
            TrainingError: Its loss was not finite.
        """
        step, self._pending = self._pending, None
        if step is None:
            return
        terms = dict(zip(step.names, step.values(), strict=True))
        if math.isfinite(terms["loss"]):
            return
        bad = ", ".join(f"{name} = {value}" for name, value in terms.items() if not math.isfinite(value))
        pages = ", ".join(str(page) for page in step.page_id[:5].tolist())
        raise TrainingError(
            f"the loss is not finite at {step.where}: {bad}. The batch has {step.page_id.numel()} pages, page_id "
            f"{pages}, ... No checkpoint holds this step. Lower model.lr and trainer.strategy.table_lr, or look at "
            "these pages"
        )


class _Step:
    """The values of a step, on their way to the host."""

    def __init__(self, names: Sequence[str], values: Tensor, page_id: Tensor, where: str) -> None:
        self.names, self.page_id, self.where = names, page_id, where
        self._host, self._copied = values, None
        if values.is_cuda:
            self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._host.copy_(values, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def values(self) -> list[float]:
        """Waits for the copy, and for nothing that was asked of the GPU after it."""
        if self._copied is not None:
            self._copied.synchronize()
        found: list[float] = self._host.tolist()
        return found
