"""Checkpoint directories: written under a temporary name, synced to disk, renamed when complete, removed safely.

    last.ckpt/
      checkpoint.json    written last: format, versions, world size, plan, shapes, size and digests of every other file
      trainer.pt         Lightning's checkpoint without the tensors: loops, callbacks, schedulers, hyperparameters
      .metadata, *.distcp   the tensors, by torch.distributed.checkpoint (`sharding.state` names them)

`sharding.manifest` says when a checkpoint is complete. Removing one begins with `checkpoint.json`. A save that is
killed leaves `.last.ckpt.partial`, which the next save removes.

A checkpoint is data: reading one never runs code of it (`sharding.plain_values`, `sharding.stored_tensors`).
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from io import IOBase
from pathlib import Path
from typing import IO, Any, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from lightning_ccn.sharding.digests import Digester, DigestingStream, digests_of
from lightning_ccn.sharding.errors import ShardingError, disk_words
from lightning_ccn.sharding.manifest import (
    FORMAT,
    INDEX,
    MANIFEST,
    TRAINER,
    newest_whole,
    read_manifest,
    saved_shapes,
    versions,
    why_not_whole,
)
from lightning_ccn.sharding.plain_values import read_trainer_state
from lightning_ccn.sharding.sharded_rows import LoadPlanner, SavePlanner
from lightning_ccn.sharding.state import differences, module_state, shapes
from lightning_ccn.sharding.stored_tensors import Reader

__all__ = [
    "load_tensors",
    "load_unsharded",
    "newest_whole",
    "read_manifest",
    "read_trainer_state",
    "remove",
    "save",
    "saved_shapes",
    "versions",
    "why_not_whole",
]

TENSORS = ".distcp"  # DCP's name for a file of tensors


def save(
    path: Path,
    state: dict[str, Any],
    trainer_state: bytes,
    about: dict[str, Any],
    group: dist.ProcessGroup,
) -> None:
    """Write a checkpoint. Every rank of `group` must call it, with its own part of `state`.

    Args:
        path: The directory to create or replace.
        state: Tensors, `ShardedRows` and other values, under the names of `sharding.state`.
        trainer_state: Content of `trainer.pt`; that of rank 0 is written.
        about: Further entries of `checkpoint.json`; those of rank 0 are written.
        group: A gloo group of all ranks that nothing else uses during the save.

    Raises:
        ShardingError: A rank could not write; raised on every rank. An earlier checkpoint at `path` is kept.
    """
    partial = path.with_name(f".{path.name}.partial")
    _on_rank_zero(group, path, lambda: _prepare(path, partial))
    writer = FileSystemWriter(partial, sync_files=True)
    writer.fs = _Disk()
    try:
        metadata = dcp_save(state, storage_writer=writer, planner=SavePlanner(), process_group=group)
    except CheckpointException as error:
        raise _not_written(path, _failures(error)) from error
    digests: list[dict[str, list[str]]] = [{}] * dist.get_world_size(group)
    mine = {name: digester.digests for name, digester in writer.fs.digesters.items()}
    dist.gather_object(mine, digests if dist.get_rank(group) == 0 else None, group=group, group_dst=0)
    about = {**about, "digests": {name: found for rank in digests for name, found in rank.items()}}
    _on_rank_zero(group, path, lambda: _finish(path, partial, metadata, trainer_state, about))


def _not_written(path: Path, why: str) -> ShardingError:
    return ShardingError(f"checkpoint {path} was not written: {why}. Earlier checkpoints are kept")


class _Disk(FileSystem):
    """DCP's file system, which digests the tensors that it writes, and whose errors are those of the disk.

    When a disk is full, torch.save ends with "unexpected pos 704 vs 598", which it raises while it handles the error of
    the disk. Another rank gets the last error only, so the first one must be raised here.

    Attributes:
        digesters: Of the files of tensors that this rank has written, by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.digesters: dict[str, Digester] = {}

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Generator[IOBase, None, None]:
        try:
            with super().create_stream(path, mode) as stream:
                if mode == "wb" and Path(path).suffix == TENSORS:
                    digester = self.digesters[Path(path).name] = Digester()
                    yield cast(IOBase, DigestingStream(cast(IO[bytes], stream), digester))
                else:
                    yield stream
        except Exception as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__cause__ or cause.__context__
            if cause is None:
                raise
            raise OSError(cause.errno, cause.strerror, str(path)) from error


def _failures(error: CheckpointException) -> str:
    """What failed on which ranks, in one line."""
    problems = {rank: problem for rank, (problem, _) in error.failures.items()}
    for problem in problems.values():
        if isinstance(problem, ShardingError):  # of the checkpoint, whichever rank reads it
            return str(problem)
    return "; ".join(f"rank {rank}: {_words(problem)}" for rank, problem in problems.items())


def _words(problem: BaseException) -> str:
    if isinstance(problem, OSError):
        return disk_words(problem)
    if isinstance(problem, pickle.UnpicklingError):  # torch's text recommends to read the file as code
        named = re.search(r"GLOBAL (\S+)", str(problem))
        what = f"names {named[1]}" if named else "is damaged"
        return f"a file of tensors {what}; only tensors are read, and no code is run"
    return " ".join(f"{type(problem).__name__}: {problem}".split())


def _prepare(path: Path, partial: Path) -> None:
    replaced = path.with_name(f".{path.name}.replaced")
    if not path.exists():  # a save was killed between the two renames of `_finish`
        for leftover in (partial, replaced):
            if leftover.exists() and why_not_whole(leftover) is None:
                leftover.rename(path)
                break
    remove(partial)
    remove(replaced)
    partial.mkdir(parents=True)


def _finish(path: Path, partial: Path, metadata: Any, trainer_state: bytes, about: dict[str, Any]) -> None:
    _write(partial / TRAINER, trainer_state)
    about["digests"] |= {TRAINER: digests_of(trainer_state), INDEX: digests_of((partial / INDEX).read_bytes())}
    manifest = {
        "format": FORMAT,
        "saved_ns": time.time_ns(),
        "versions": versions(),
        **about,
        "tensors": {
            key: {"dtype": str(value.properties.dtype).removeprefix("torch."), "shape": list(value.size)}
            for key, value in sorted(metadata.state_dict_metadata.items())
            if isinstance(value, TensorStorageMetadata)
        },
        "files": {file.name: file.stat().st_size for file in sorted(partial.iterdir())},
    }
    _sync_folder(partial)  # the files that the manifest lists, before the manifest
    _write(partial / f"{MANIFEST}.tmp", json.dumps(manifest, indent=1).encode())
    (partial / f"{MANIFEST}.tmp").rename(partial / MANIFEST)
    _sync_folder(partial)
    replaced = path.with_name(f".{path.name}.replaced")
    if path.exists():  # a directory cannot be renamed over another
        path.rename(replaced)
    partial.rename(path)
    _sync_folder(path.parent)
    with suppress(OSError):  # the checkpoint is there; the next save tries again, and says what is wrong
        remove(replaced)


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _on_rank_zero(group: dist.ProcessGroup, path: Path, work: Callable[[], None]) -> None:
    """Do `work` on rank 0; if it fails, raise the error on all ranks."""
    problem: list[str | None] = [None]
    if dist.get_rank(group) == 0:
        try:
            work()
        except OSError as error:
            problem = [disk_words(error)]
    dist.broadcast_object_list(problem, group_src=0, group=group)
    if problem[0]:
        raise _not_written(path, problem[0])


def remove(path: Path) -> None:
    """Remove a checkpoint, complete or not. It counts as incomplete from the first step on."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        manifest = path / MANIFEST
        if manifest.exists():
            manifest.unlink()
            _sync_folder(path)
        shutil.rmtree(path)


def load_tensors(path: Path, state: dict[str, Any], group: dist.ProcessGroup | None) -> None:
    """Fill `state` from the checkpoint at `path`: tensors and `ShardedRows` in place; other values are replaced.

    Every rank of `group` must call it, with its own part of the values. Without a group, it runs in this process alone.

    Raises:
        ShardingError: A rank could not read its part, or it is not what was saved, or a file holds something else than
            tensors and plain values; raised on every rank.
    """
    manifest = read_manifest(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # intended if there is no group
            dcp_load(
                state,
                storage_reader=Reader(path, manifest["files"], manifest.get("digests", {})),
                planner=LoadPlanner(),
                process_group=group,
                no_dist=group is None,
            )
    except CheckpointException as error:
        raise ShardingError(f"cannot load checkpoint {path}: {_failures(error)}") from error


def load_unsharded(path: str | Path, module: nn.Module, prefix: str = "") -> nn.Module:
    """Load a checkpoint's weights into a module with plain tables, in one process and without a process group.

    Args:
        path: Directory of the checkpoint, written by any number of ranks.
        module: The LightningModule after `configure_model`, or a part of it. Tables on the meta device are allocated.
        prefix: Path of the part in the LightningModule, for example `model.`.

    Returns:
        `module`.

    Raises:
        ShardingError: The checkpoint is incomplete, or lacks entries that the module needs.
    """
    path = Path(path)
    saved = saved_shapes(read_manifest(path))
    own = {
        name: torch.empty_like(value, device="cpu") if isinstance(value, torch.Tensor) and value.is_meta else value
        for name, value in module.state_dict().items()
    }
    state = module_state(module, own, prefix)
    wanted = shapes(state)
    lines = differences(wanted, {key: shape for key, shape in saved.items() if key in wanted})
    if lines:
        raise ShardingError(f"checkpoint {path} does not fit the module:\n  " + "\n  ".join(lines))
    load_tensors(path, state, group=None)
    module.load_state_dict(dict(zip(own, state.values(), strict=True)), assign=True)
    return module
