"""Counts the calls of one training step that would make the host wait for a GPU; on a CPU too.

A GPU works behind the host: the host may be several operations ahead, as long as it asks for no value. These calls ask
for one: `.item()`, `.tolist()`, `int(tensor)`, a boolean mask (its size is a value), `unique`, a `repeat_interleave`
that does not know its length, a tensor made from values of the host. On a CPU they cost nothing, and can be counted.
"""

from __future__ import annotations

import inspect
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lightning_ccn.nn.tables import PageEmbedding

ASK = {"item", "tolist", "__int__", "__float__", "__bool__", "__index__", "cpu", "numpy"}
ASK |= {"unique", "unique_consecutive", "nonzero", "masked_select", "bincount"}
FROM_HOST = {"tensor", "as_tensor", "new_tensor"}
OURS_AND_THEIRS = (
    "lightning_ccn",
    "torchrec",
    "fbgemm_gpu",
    "lightning",
    "torchmetrics",
    "torch.optim",
    "torch.nn.parallel",
)
PACKAGES = {
    name: f"{Path(str(import_module(name).__file__)).parent}/" for name in OURS_AND_THEIRS
}  # where their files are
BARRIERS = ("barrier", "monitored_barrier")  # of a process group; they take no tensor
COLLECTIVES = {"all_reduce", "all_to_all_single", "all_gather_into_tensor", "reduce_scatter_tensor"}


class Waits(TorchFunctionMode):
    """Within it, calls are counted.

    Attributes:
        found: Number of waits by (package, call, file:line).
        collectives: Number of collective operations by (package, name), with all barriers as "barrier".
        calls: Number of all calls of torch's functions and of tensors' methods and attributes.
        counts: Whether calls are counted now.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[str, str, str]] = Counter()
        self.collectives: Counter[tuple[str, str]] = Counter()
        self.calls = 0
        self.counts = True
        self._watching = ExitStack()

    def __enter__(self) -> Waits:
        """Begins to count."""
        for name in BARRIERS:
            self._watching.enter_context(mock.patch.object(dist.ProcessGroup, name, self._barrier(name)))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Ends to count."""
        super().__exit__(*error)
        self._watching.close()

    def _barrier(self, name: str) -> Callable[..., Any]:
        original = getattr(dist.ProcessGroup, name)

        def barrier(*args: Any, **kwargs: Any) -> Any:
            self.collectives[asked_by()[0], "barrier"] += 1
            return original(*args, **kwargs)

        return barrier

    @property
    def barriers(self) -> dict[str, int]:
        """Number of barriers by package."""
        return {who: count for (who, name), count in self.collectives.items() if name == "barrier"}

    def of(self, package: str) -> dict[str, int]:
        """Waits that a package asked for, by call and place."""
        return {f"{call} at {place}": count for (who, call, place), count in self.found.items() if who == package}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Counts a call, and makes it."""
        kwargs = kwargs or {}
        if not self.counts:
            return func(*args, **kwargs)
        self.calls += 1
        name = getattr(func, "__name__", str(func))
        if name in COLLECTIVES:
            self.collectives[asked_by()[0], name] += 1
        elif _waits(name, args, kwargs):
            who, place = asked_by()
            self.found[who, name, place] += 1
        return func(*args, **kwargs)


def _waits(name: str, args: Any, kwargs: Any) -> bool:
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None and not any(isinstance(a, int) for a in args)
    if name in FROM_HOST:
        return kwargs.get("device") is not None or name == "new_tensor"
    if name in ("__getitem__", "__setitem__"):
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in index)
    return name in ASK


def asked_by() -> tuple[str, str]:
    """The innermost of `PACKAGES` that made the call, and where."""
    for frame, line in traceback.walk_stack(inspect.currentframe()):
        for package, home in PACKAGES.items():
            if home in frame.f_code.co_filename:
                return package, f"{frame.f_code.co_filename.rpartition(home)[2]}:{line}"
    return "elsewhere", ""


@contextmanager
def compiled_calls_left_out(waits: Waits) -> Iterator[None]:
    """Leaves out what torch.compile would take from Python; it runs as written.

    Everything passed to torch.compile is left out, except the lookups, which are not compiled. A compiled step itself
    cannot be counted: torch.compile would compile the counter too.
    """

    def counting(value: bool, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            before, waits.counts = waits.counts, value
            try:
                return function(*args, **kwargs)
            finally:
                waits.counts = before

        return call

    lookups = counting(True, PageEmbedding.forward)
    with (
        mock.patch("torch.compile", lambda function, **_: counting(False, function)),
        mock.patch.object(PageEmbedding, "forward", lambda self, batch: lookups(self, batch)),
    ):
        yield


class CountStep(L.Callback):
    """Counts one step of a fit, from the end of the step before it to its own end.

    Attributes:
        waits: The counts.
    """

    def __init__(self, step: int) -> None:
        self.step, self.waits = step, Waits()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Begins, or ends."""
        if trainer.global_step == self.step - 1:
            self.waits.__enter__()
        elif trainer.global_step == self.step:
            self.waits.__exit__(None, None, None)
