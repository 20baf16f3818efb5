"""`checkpoint.json`: what a checkpoint's directory holds. Every field is checked: anybody may have written it.

A checkpoint is complete if it has `checkpoint.json` and every file listed there has the listed size. What a file holds
is compared with its digests when it is read; checkpoints of older versions have none.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from lightning_ccn.sharding.digests import Verifier, are_digests
from lightning_ccn.sharding.errors import ShardingError

FORMAT = 1
MANIFEST = "checkpoint.json"
TRAINER = "trainer.pt"
INDEX = ".metadata"  # DCP's name
PACKAGES = ("torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu", "lightning")
_PLACES = ("*", "checkpoints/*", "*/checkpoints/*")  # of the checkpoints in a run, or in a folder of runs
_NAMED = 5  # how many checkpoints a message names


def versions() -> dict[str, str]:
    """Installed versions of the packages that numbers and file formats depend on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def why_not_whole(path: Path) -> str | None:
    """None if the checkpoint is complete, else what is wrong with it. Reads `checkpoint.json` and the files' sizes."""
    if not path.is_dir():
        if path.exists():
            return "it is a file; a checkpoint is a folder, and a file is never read as one"
        return "it does not exist"
    if not (path / MANIFEST).is_file():
        if inside := _whole_inside(path):
            return f"it is not a checkpoint, but holds some; give one of them: {', '.join(map(str, inside))}"
        if not _is_named(path):
            return "it is not a checkpoint, and holds none; name one, or the folder of a run that has saved one"
        return f"it has no {MANIFEST}: its save was not finished, or its removal was begun"
    try:
        files = _parse(path)["files"]
    except ValueError as error:
        return f"{MANIFEST} is damaged: {error}"
    for name, size in files.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size:,} bytes instead of {size:,}"
    return None


def read_manifest(path: str | Path) -> dict[str, Any]:
    """`checkpoint.json` of a complete checkpoint.

    Raises:
        ShardingError: The checkpoint is incomplete or damaged, or has a format that this version does not know.
    """
    path = Path(path)
    if problem := why_not_whole(path):
        raise ShardingError(f"cannot load checkpoint {path}: {problem}")
    manifest = _parse(path)
    if manifest["format"] != FORMAT:
        raise ShardingError(
            f"cannot load checkpoint {path}: it has format {manifest['format']}, this version reads {FORMAT}; "
            f"it was written with {manifest['versions']}"
        )
    verifier = Verifier(path, manifest.get("digests", {}))
    try:
        for name in (TRAINER, INDEX):  # small, and read whole
            verifier.check(name, [(0, manifest["files"].get(name, 0))])
    except ShardingError as error:
        raise ShardingError(f"cannot load checkpoint {path}: {error}") from None
    return manifest


def saved_shapes(manifest: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor in a checkpoint."""
    return {key: tuple(tensor["shape"]) for key, tensor in manifest["tensors"].items()}


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
            whole.append((_parse(path)["saved_ns"], path))
        else:
            if not path.name.endswith(".partial"):
                broken.append(f"{path}: {problem}")
            warnings.warn(f"checkpoint skipped: {path}: {problem}", stacklevel=2)
    if broken and not whole:
        raise ShardingError(f"no checkpoint in {folder} is complete: {'; '.join(broken)}")
    return max(whole)[1] if whole else None


def _candidates(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink() and _is_named(path):
            yield path


def _is_named(folder: Path) -> bool:
    """Whether a folder is a checkpoint, or what is left of one, by the names in it."""
    named = any((folder / name).exists() for name in (MANIFEST, TRAINER, INDEX))
    return named or folder.name.endswith(".partial") or next(folder.glob("*.distcp"), None) is not None


def _whole_inside(folder: Path) -> list[Path]:
    """The newest complete checkpoints of a run, of its folder `checkpoints` or of a folder of runs, newest first."""
    found = [manifest.parent for pattern in _PLACES for manifest in folder.glob(f"{pattern}/{MANIFEST}")]
    whole = [path for path in found if not path.name.startswith(".") and why_not_whole(path) is None]
    return sorted(whole, key=lambda path: _parse(path)["saved_ns"], reverse=True)[:_NAMED]


# ------------------------------------------------------------------------------------------------ its fields


def _parse(path: Path) -> dict[str, Any]:
    """The manifest of the checkpoint at `path`.

    Raises:
        ValueError: It is no JSON, or a field is missing or has a wrong type; the message names the field.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    if not isinstance(manifest, dict):
        raise ValueError("it is not an object")
    known = manifest.get("format") == FORMAT
    for name, (fits, what) in _FIELDS.items() if known else _OF_ANY_FORMAT.items():
        if name not in manifest:
            raise ValueError(f"{name} is missing")
        if not fits(manifest[name]):
            raise ValueError(f"{name} is not {what}")
    if not known:
        return manifest
    if not are_digests(manifest.get("digests", {}), manifest["files"]):
        raise ValueError("digests is not a digest of each block of the files")
    needed = sum(math.prod(t["shape"]) * getattr(torch, t["dtype"]).itemsize for t in manifest["tensors"].values())
    if needed > sum(manifest["files"].values()):  # or a reader would allocate what the file says
        raise ValueError(f"its tensors would take {needed:,} bytes, more than its files have")
    return manifest


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _each(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


def _are_files(value: Any) -> bool:
    if not isinstance(value, dict) or not all(map(_is_count, value.values())):
        return False
    return all(name not in ("", ".", "..") and not {"/", "\0"} & set(name) for name in value)


def _is_tensor(value: Any) -> bool:
    if not isinstance(value, dict) or not _is_text(value.get("dtype")) or not isinstance(value.get("shape"), list):
        return False
    known = isinstance(getattr(torch, value["dtype"], None), torch.dtype)
    return known and all(map(_is_count, value["shape"]))


_Check = tuple[Callable[[Any], bool], str]
_OF_ANY_FORMAT: dict[str, _Check] = {
    "format": (_is_count, "a whole number"),
    "saved_ns": (_is_count, "a whole number"),
    "versions": (_each(_is_text), "a version for each package"),
    "files": (_are_files, "a size for each file of this folder"),
}
_FIELDS: dict[str, _Check] = _OF_ANY_FORMAT | {
    "tensors": (_each(_is_tensor), "a dtype and a shape for each tensor"),
    "epoch": (_is_count, "a whole number"),
    "global_step": (_is_count, "a whole number"),
    "world_size": (_is_count, "a whole number"),
    "table_optimizer": (_is_text, "text"),
    "plan": (_each(_is_text), "a placement for each table"),
}
