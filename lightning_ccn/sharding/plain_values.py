"""The trainer's part of a checkpoint: plain values and tensors only, so that reading it never runs code.

torch.save writes a pickle. It is read with `weights_only`, which makes the types listed here and no others.
"""

from __future__ import annotations

import io
import re
import warnings
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from lightning_ccn.sharding.errors import ShardingError
from lightning_ccn.sharding.manifest import TRAINER

_KEPT = (type(None), bool, int, float, complex, str, bytes, bytearray, torch.dtype, torch.device, Tensor)


def plain(value: Any, where: str) -> Any:
    """`value` in plain types: a path becomes text, a number of NumPy's one of Python's, a subclass its plain base.

    Args:
        value: Nested dicts, lists, tuples and sets of numbers, text, bytes, paths, None and tensors.
        where: Its place in the checkpoint, for the message; empty for the whole.

    Raises:
        ShardingError: Something in it is of another type; the message names its place.
    """
    if type(value) in _KEPT or isinstance(value, torch.dtype | torch.device):
        return value
    if isinstance(value, Mapping):
        prefix = f"{where}." if where else ""
        entries = {
            plain(key, f"the key {key!r} of {where}"): plain(inner, f"{prefix}{key}") for key, inner in value.items()
        }
        if isinstance(value, OrderedDict):
            return OrderedDict(entries)
        return Counter(entries) if isinstance(value, Counter) else entries
    if isinstance(value, list | tuple):
        parts = [plain(inner, f"{where}[{i}]") for i, inner in enumerate(value)]
        return tuple(parts) if isinstance(value, tuple) else parts
    if isinstance(value, set | frozenset):
        return {plain(inner, f"an element of {where}") for inner in value}
    if isinstance(value, torch.nn.Parameter):
        return value.detach()
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, np.generic):
        return plain(value.item(), where)
    if isinstance(value, str):
        return str.__str__(value)  # the text of an enumeration's value, not its name
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    raise ShardingError(
        f"the checkpoint was not written: {where} is a {kind}; a checkpoint holds plain values only, so that loading "
        "it never runs code: put numbers, text, lists, dicts or tensors in its place, or leave it out"
    )


def encode(state: Mapping[str, Any]) -> bytes:
    """The content of `trainer.pt` for Lightning's checkpoint without the tensors of the model.

    Raises:
        ShardingError: It holds something that is not plain, see `plain`.
    """
    buffer = io.BytesIO()
    torch.save(plain(state, ""), buffer)
    return buffer.getvalue()


def read_plain(file: IO[bytes]) -> Any:
    """What `torch.save` wrote to `file`, if it is plain. Tensors come to the CPU.

    Raises:
        ValueError: It is damaged, or holds more than plain values; nothing of it was run. The message says which.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch comments on pickles of another protocol
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile file can make torch raise anything
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            raise ValueError(f"it names {named[1]}; only plain values are read, and no code is run") from None
        raise ValueError("it is damaged, or is not of plain values") from None


def read_trainer_state(path: str | Path) -> dict[str, Any]:
    """Lightning's own part of the checkpoint at `path`, without the tensors of the model.

    Raises:
        ShardingError: `trainer.pt` is damaged, or holds more than plain values; nothing of it was run.
    """
    path = Path(path)
    try:
        with open(path / TRAINER, "rb") as file:
            state = read_plain(file)
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
            raise ValueError("it is not a dict of named values")
        for name, kind in (("epoch", int), ("global_step", int), ("pytorch-lightning_version", str)):
            if type(state.get(name)) is not kind:
                raise ValueError(f"its {name} is missing, or is not of type {kind.__name__}")
    except (OSError, ValueError) as error:
        raise ShardingError(
            f"cannot load checkpoint {path}: {TRAINER} is refused: {error}. Use a checkpoint that a run of this "
            "program has saved"
        ) from None
    return state
