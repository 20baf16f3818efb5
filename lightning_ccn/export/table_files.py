"""Embedding tables of a checkpoint as files that are memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from lightning_ccn.sharding import read_manifest
from lightning_ccn.sharding.checkpoint import load_tensors

StoredDtype = Literal["fp32", "fp16", "int8"]
AT_ONCE = 1 << 20  # rows that are converted at a time
LARGEST = 127  # of an int8 row, without its sign


def load_table(checkpoint: Path, name: str, path: Path) -> None:
    """Writes a table, which any number of ranks have saved, as float32 [rows, dim].

    Memory: one part of the table, as a rank has saved it.
    """
    key = f"tables.{name}.weight"
    saved = read_manifest(checkpoint)["tensors"][key]
    kind = torch.empty(0, dtype=getattr(torch, saved["dtype"])).numpy().dtype
    raw = path if kind == np.float32 else path.with_suffix(".raw")
    values = _new(raw, kind, tuple(saved["shape"]))
    load_tensors(checkpoint, {key: torch.from_numpy(values)}, group=None)
    values.flush()
    if raw != path:
        floats = _new(path, np.dtype(np.float32), values.shape)
        for rows in _stretches(len(values)):
            floats[rows] = values[rows]
        floats.flush()
        raw.unlink()


def shrink(values: Path, scale: Path, dtype: StoredDtype) -> None:
    """Replaces a float32 table by one of another type.

    Of int8, each row is scaled by its largest value, so a value is off by at most 1/254 of that.

    Args:
        values: The file of the table.
        scale: The file for the factors of int8 rows, float32 [rows].
        dtype: The new type.
    """
    if dtype == "fp32":
        return
    full = np.load(values, mmap_mode="r")
    small = values.with_suffix(".small")
    smaller = _new(small, np.dtype(np.float16 if dtype == "fp16" else np.int8), full.shape)
    factors = _new(scale, np.dtype(np.float32), full.shape[:1]) if dtype == "int8" else None
    for rows in _stretches(len(full)):
        of_rows = full[rows]
        if factors is None:
            smaller[rows] = of_rows
        else:
            largest = np.abs(of_rows).max(1, initial=0.0)
            factors[rows] = np.where(largest > 0, largest, 1.0) / LARGEST
            smaller[rows] = np.rint(of_rows / factors[rows, None])
    smaller.flush()
    if factors is not None:
        factors.flush()
    small.replace(values)


def mean_of_columns(values: Path) -> None:
    """Replaces a table by the mean of its columns, float32 [rows]: the weights of crossed ids, see `nn.crosses`."""
    full = np.load(values, mmap_mode="r")
    small = values.with_suffix(".small")
    means = _new(small, np.dtype(np.float32), full.shape[:1])
    for rows in _stretches(len(full)):
        means[rows] = full[rows].mean(1)
    means.flush()
    small.replace(values)


def _stretches(rows: int) -> Iterator[slice]:
    return (slice(start, start + AT_ONCE) for start in range(0, rows, AT_ONCE))


def _new(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    return np.lib.format.open_memmap(path, "w+", dtype, shape)
