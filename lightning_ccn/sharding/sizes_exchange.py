"""The first part of an exchange of ids, in which every rank tells the others how many it will send, with one wait.

TorchRec copies each list of these numbers to the GPU by itself, and from 1.9 on reads them back, to check them. The
host waits each time until the GPU has done all it was asked to do. Here all lists go in one copy from page-locked
memory, and the check reads them on the host. What is left is the wait for the numbers of the other ranks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torchrec.distributed.dist_data import KJTAllToAllSplitsAwaitable, SplitsAllToAllAwaitable


class ExchangeOfIds(KJTAllToAllSplitsAwaitable):
    """In place of TorchRec's class of the same arguments, which makes the lists of numbers on the GPU.

    Args:
        device: Where the ids are, and where those of the other ranks will be.
        arguments: The others, by name.
    """

    def __init__(self, *, device: torch.device, **arguments: Any) -> None:
        super().__init__(device=None, **arguments)  # makes the lists on the host
        self._device = device


class ExchangeOfSizes(SplitsAllToAllAwaitable):
    """In place of TorchRec's class, for lists on the host.

    Args:
        input_tensors: The lists, each int64 [ranks].
        pg: The process group.
        device: Where the group exchanges tensors.
        tag: What TorchRec adds to find ranks that run different operations, by name; from 1.8 on.
    """

    def __init__(self, input_tensors: list[Tensor], pg: dist.ProcessGroup, *, device: torch.device, **tag: Any) -> None:
        on_host = torch.stack(input_tensors)  # [lists, ranks]
        locked = on_host.pin_memory() if device.type == "cuda" else on_host
        sent = locked.to(device, non_blocking=True, copy=True)
        super().__init__(list(sent.unbind()), pg, **tag)
        self._sent = getattr(self, "_input_tensor", None)  # NCCL still reads it
        self._input_tensor = on_host.T.flatten()  # as it was sent, [ranks * lists]
