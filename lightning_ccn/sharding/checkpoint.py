"""Checkpoint directories: written under a temporary name, synced to disk, renamed when complete, removed safely.

    last.ckpt/
      checkpoint.json    written last: format, versions, world size, plan, shapes, and the size of every other file
      trainer.pt         Lightning's checkpoint without the tensors: loops, callbacks, schedulers, hyperparameters
      .metadata, *.distcp   the tensors, by torch.distributed.checkpoint (`sharding.state` names them)

A checkpoint is complete if it has `checkpoint.json` and every file listed there has the listed size. Removing one
begins with `checkpoint.json`. A save that is killed leaves `.last.ckpt.partial`, which the next save removes.

`trainer.pt` and `.metadata` are pickles: only load checkpoints that you trust.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from lightning_ccn.sharding.errors import ShardingError
from lightning_ccn.sharding.sharded_rows import LoadPlanner, SavePlanner
from lightning_ccn.sharding.state import differences, module_state, shapes

FORMAT = 1
MANIFEST = "checkpoint.json"
TRAINER = "trainer.pt"
PACKAGES = ("torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu", "lightning")


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
    try:
        metadata = dcp_save(
            state,
            storage_writer=FileSystemWriter(partial, sync_files=True),
            planner=SavePlanner(),
            process_group=group,
        )
    except CheckpointException as error:
        raise ShardingError(f"checkpoint {path} was not written: {_failures(error)}") from error
    _on_rank_zero(group, path, lambda: _finish(path, partial, metadata, trainer_state, about))


def _failures(error: CheckpointException) -> str:
    return "; ".join(f"rank {rank}: {problem!r}" for rank, (problem, _) in error.failures.items())


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
    remove(replaced)


def versions() -> dict[str, str]:
    """Installed versions of the packages that numbers and file formats depend on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


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
            problem = [str(error)]
    dist.broadcast_object_list(problem, group_src=0, group=group)
    if problem[0]:
        raise ShardingError(f"checkpoint {path} was not written: {problem[0]}")


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


def why_not_whole(path: Path) -> str | None:
    """None if the checkpoint is complete, else what is wrong with it. Reads only the sizes of the files."""
    if not path.is_dir():
        return "it is not a directory" if path.exists() else "it does not exist"
    if not (path / MANIFEST).is_file():
        return f"it has no {MANIFEST}: its save was not finished, or its removal was begun"
    try:
        files = json.loads((path / MANIFEST).read_text())["files"]
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} is damaged"
    for name, size in files.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size:,} bytes instead of {size:,}"
    return None


def newest_whole(folder: str | Path) -> Path | None:
    """The newest complete checkpoint under `folder`, or None if there is no checkpoint at all.

    The time of saving counts, not the name. A broken checkpoint is skipped with a warning that says what is wrong. A
    save that was not finished counts as no checkpoint, so a run that is killed during its first save starts anew.

    Raises:
        ShardingError: There are checkpoints, but none is complete.
    """
    whole, broken = [], []
    for path in _candidates(Path(folder)):
        problem = why_not_whole(path)
        if problem is None:
            whole.append((read_manifest(path)["saved_ns"], path))
        else:
            if not path.name.endswith(".partial"):
                broken.append(f"{path}: {problem}")
            warnings.warn(f"checkpoint skipped: {path}: {problem}", stacklevel=2)
    if broken and not whole:
        raise ShardingError(f"no checkpoint in {folder} is complete:\n  " + "\n  ".join(broken))
    return max(whole)[1] if whole else None


def _candidates(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            named = any((path / name).exists() for name in (MANIFEST, TRAINER, ".metadata"))
            if named or path.name.endswith(".partial") or next(path.glob("*.distcp"), None):
                yield path


def read_manifest(path: str | Path) -> dict[str, Any]:
    """`checkpoint.json` of a complete checkpoint.

    Raises:
        ShardingError: The checkpoint is incomplete, or has a format that this version does not know.
    """
    path = Path(path)
    if problem := why_not_whole(path):
        raise ShardingError(f"cannot load checkpoint {path}: {problem}")
    manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text())
    if manifest["format"] != FORMAT:
        raise ShardingError(
            f"cannot load checkpoint {path}: it has format {manifest['format']}, this version reads {FORMAT}; "
            f"it was written with {manifest['versions']}"
        )
    return manifest


def saved_shapes(manifest: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor in a checkpoint."""
    return {key: tuple(tensor["shape"]) for key, tensor in manifest["tensors"].items()}


def read_trainer_state(path: Path) -> dict[str, Any]:
    """Lightning's own part of a checkpoint, which is a pickle."""
    state: dict[str, Any] = torch.load(path / TRAINER, map_location="cpu", weights_only=False)
    return state


def load_tensors(path: Path, state: dict[str, Any], group: dist.ProcessGroup | None) -> None:
    """Fill `state` from the checkpoint at `path`: tensors and `ShardedRows` in place; other values are replaced.

    Every rank of `group` must call it, with its own part of the values. Without a group, it runs in this process alone.

    Raises:
        ShardingError: A rank could not read its part; raised on every rank.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # intended if there is no group
            dcp_load(
                state,
                storage_reader=FileSystemReader(path),
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
        name: torch.empty_like(value, device="cpu") if value.is_meta else value
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
