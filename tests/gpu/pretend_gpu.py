"""Pretends on a CPU that there is a GPU: finds tensors of the host where CUDA or NCCL would refuse them.

Every tensor is followed from where it was made. One that was made on a given device (`device=...`, `.to(device)`)
counts as the GPU's, and so does everything that is computed from it. One that was made without a device is the host's.
An operation on both, or a collective operation of the default group on a tensor of the host, fails as on CUDA, and so
does what CUDA refuses under `--trainer.deterministic true`. What is not known passes: tensors that C++ code has made,
and operations within other packages.
"""

from __future__ import annotations

import inspect
import itertools
import traceback
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torchrec.distributed import dist_data

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.sharding.wrap import wait_less
from tests.gpu.waits import asked_by

HOST, GPU = "host", "gpu"
TO_HOST = ("cpu", "numpy", "tolist", "item")
NOT_DETERMINISTIC = (
    "cumsum",
    "cumsum_",
    "histc",
    "put_",
    "median",
    "kthvalue",
)  # says torch.use_deterministic_algorithms
COLLECTIVES = ("all_reduce", "all_gather_into_tensor", "all_to_all_single", "reduce_scatter_tensor", "broadcast")


class WrongDevice(Exception):
    """CUDA would refuse this."""


class PretendGPU(TorchFunctionMode):
    """Follows tensors; use it through `pretend_gpu`."""

    def __init__(self) -> None:
        super().__init__()
        self._places: dict[int, tuple[weakref.ref[Tensor], str]] = {}

    def place(self, tensor: Tensor) -> str | None:
        """`HOST`, `GPU`, or None: not known."""
        found = self._places.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor else None

    def put(self, tensors: Any, place: str) -> None:
        """Notes where tensors are."""
        for tensor in tree_leaves(tensors):
            if isinstance(tensor, Tensor):
                self._places[id(tensor)] = (weakref.ref(tensor), place)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation, and notes where its result is."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        places = [self.place(tensor) for tensor in inputs]
        named = any(isinstance(leaf, torch.device) for leaf in tree_leaves((args, kwargs)))
        if not named and GPU in places:
            own = [t for t, place in zip(inputs, places, strict=True) if place == HOST and t.dim() > 0]
            if own and asked_by()[0] == "lightning_ccn" and name not in ("__set__", "copy_"):
                raise WrongDevice(f"{name} of the GPU's tensors and of a tensor {list(own[0].shape)} of the host")
        if name in NOT_DETERMINISTIC and any(tensor.is_floating_point() for tensor in inputs):
            raise WrongDevice(f"{name} of floats has no deterministic form on CUDA")
        if name in COLLECTIVES and HOST in places and _in_default_group(args, kwargs):
            raise WrongDevice(f"{name} of a tensor of the host; NCCL has no group for it")
        result = func(*args, **kwargs)
        if name == "__set__":  # of `.data` or `.grad`
            self.put(args[0], self.place(args[1]) or HOST) if len(inputs) == 2 else None
        elif name in TO_HOST:
            # on a CPU, `cpu` gives the same tensor, which is the GPU's still
            result = result.clone() if isinstance(result, Tensor) else result
            self.put(result, HOST)
        elif named or GPU in places:
            self.put(result, GPU)
        elif not inputs or HOST in places:
            self.put(result, HOST)
        return result


def _in_default_group(args: Any, kwargs: Any) -> bool:
    callers = [frame.f_code.co_name for frame, _ in itertools.islice(traceback.walk_stack(inspect.currentframe()), 10)]
    if any(name.endswith(("_object", "_object_list")) for name in callers):
        return False  # torch moves Python objects to the group's device itself
    groups = [leaf for leaf in (*args, *kwargs.values()) if isinstance(leaf, dist.ProcessGroup)]
    return not groups or groups[0] == dist.group.WORLD


@contextmanager
def pretend_gpu() -> Iterator[PretendGPU]:
    """Within it, this thread's tensors are followed.

    Raises:
        WrongDevice: From the operation that CUDA would refuse.
    """
    mode = PretendGPU()
    to = PageBatch.to

    def copied(batch: PageBatch, device: torch.device, non_blocking: bool = False) -> PageBatch:
        batch = to(batch, device, non_blocking)
        mode.put(batch.tensors(), GPU)
        return batch

    with mode, patch.object(PageBatch, "to", copied), torchrec_as_on_a_gpu():
        yield mode


@contextmanager
def torchrec_as_on_a_gpu() -> Iterator[None]:
    """Within it, TorchRec exchanges ids as it does under our strategy on a GPU."""
    replaced = ("_get_recat", "KJTAllToAllSplitsAwaitable", "SplitsAllToAllAwaitable")
    with patch.multiple(dist_data, **{name: getattr(dist_data, name) for name in replaced}):
        wait_less(torch.device("cpu"))
        yield
