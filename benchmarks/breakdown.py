"""Takes a bare training step apart: the seconds of each part, and the work of its dense part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.bare import loss_of
from benchmarks.work import counted
from lightning_ccn.data.batch import PageBatch
from lightning_ccn.models.system import System
from lightning_ccn.nn.activation_unit import ActivationUnit
from lightning_ccn.nn.attention import TargetAttention
from lightning_ccn.nn.collaborative import CollaborativeModule
from lightning_ccn.nn.head import PageMLP
from lightning_ccn.nn.tables import Embedded, PageEmbedding

LAYERS = {  # the part that a layer belongs to; an outer layer counts for those inside it
    PageEmbedding: "lookup",
    ActivationUnit: "attention",
    TargetAttention: "attention",
    CollaborativeModule: "collaborative module",
    PageMLP: "head",
}
Clock = Callable[[], float]


class Watch:
    """Adds up the seconds of the layers of a forward pass, and keeps what the embedding layer returns."""

    def __init__(self, system: nn.Module, now: Clock) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.embedded: Embedded | None = None
        self._now, self._inside, self._start = now, 0, 0.0
        self._part = {layer: part for layer in system.modules() if (part := _part_of(layer))}
        self._handles = [layer.register_forward_pre_hook(self._enter) for layer in self._part]
        self._handles += [layer.register_forward_hook(self._leave) for layer in self._part]

    def remove(self) -> None:
        """Takes the hooks out of the layers."""
        for handle in self._handles:
            handle.remove()

    def _enter(self, layer: nn.Module, _: Any) -> None:
        if not self._inside:
            self._start = self._now()
        self._inside += 1

    def _leave(self, layer: nn.Module, _: Any, output: Any) -> None:
        self._inside -= 1
        if not self._inside:
            self.seconds[self._part[layer]] += self._now() - self._start
        if isinstance(output, Embedded):
            self.embedded = output


@contextmanager
def watched(system: nn.Module, now: Clock) -> Iterator[Watch]:
    """Watches the layers of a system."""
    watch = Watch(system, now)
    try:
        yield watch
    finally:
        watch.remove()


def parts_of(system: System, optimizer: Optimizer, batches: Sequence[PageBatch], now: Clock) -> dict[str, float]:
    """Trains on batches, as `bare.steps` does, with a clock between the parts.

    The backward pass is run in two pieces, which give the same gradients: from the loss to the looked-up vectors, and
    from there through the tables, whose optimizer updates them.

    Returns:
        Seconds of a step by part.
    """
    seconds: dict[str, float] = defaultdict(float)
    dense = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    with watched(system, now) as watch:
        for batch in batches:
            clock = [now()]
            prediction = system(batch)
            clock.append(now())
            loss = loss_of(system, prediction, batch)
            clock.append(now())
            optimizer.zero_grad()
            assert watch.embedded is not None
            looked_up = [tensor for tensor in (watch.embedded.user, watch.embedded.item) if tensor.requires_grad]
            gradients = dense_gradients(loss, looked_up, dense)
            clock.append(now())
            torch.autograd.backward(looked_up, gradients)
            clock.append(now())
            optimizer.step()
            clock.append(now())
            names = ("forward", "losses", "backward", "table update", "dense update")
            for name, start, end in zip(names, clock[:-1], clock[1:], strict=True):
                seconds[name] += end - start
    forward = seconds.pop("forward")
    parts = {**watch.seconds, "rest of the forward pass": forward - sum(watch.seconds.values()), **seconds}
    return {name: value / len(batches) for name, value in parts.items()}


def dense_gradients(loss: Tensor, looked_up: Sequence[Tensor], dense: Sequence[Tensor]) -> list[Tensor]:
    """The backward pass down to the looked-up vectors: returns their gradients, and leaves the layers theirs."""
    inputs = [*looked_up, *(parameter for parameter in dense if parameter.requires_grad)]
    found = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
    for parameter, gradient in zip(inputs[len(looked_up) :], found[len(looked_up) :], strict=True):
        parameter.grad = gradient
    return list(found[: len(looked_up)])


def dense_work(system: System, batch: PageBatch) -> dict[str, float]:
    """The work of a step without lookup and update of the tables, and what these two move.

    Returns:
        `flops` and `bytes` of the dense part, see `work.Work`; `table_bytes`, by hand: a looked-up row is read, its
        vector written, the gradient written and read, and the row read and written.
    """
    with watched(system, lambda: 0.0) as watch:
        with counted() as forward:
            loss = loss_of(system, system(batch), batch)
        assert watch.embedded is not None
        looked_up = [tensor for tensor in (watch.embedded.user, watch.embedded.item) if tensor.requires_grad]
        dense = [p for name, p in system.named_parameters() if not name.startswith("embedding.")]
        with counted() as backward:
            dense_gradients(loss, looked_up, dense)
        with counted() as lookup:
            embedding = next(layer for layer in system.modules() if isinstance(layer, PageEmbedding))
            embedding(batch.with_tensors(batch.tensors()))
    return {
        "flops": float(forward.flops - lookup.flops + backward.flops),
        "bytes": float(forward.bytes - lookup.bytes + backward.bytes),
        "table_bytes": 6.0 * sum(tensor.nbytes for tensor in looked_up),
    }


def _part_of(layer: nn.Module) -> str | None:
    return next((part for kind, part in LAYERS.items() if isinstance(layer, kind)), None)
