"""Reading the tensors of a checkpoint that anybody may have written: no file of it can run code.

torch.distributed.checkpoint (DCP) keeps its index, `.metadata`, as a pickle, and so would any code in it run. Here the
pickle is read with the few names that DCP writes, none of which is a real class, and the index is built from what it
says. DCP reads tensors with `weights_only`; other values are read here, also with `weights_only`.

Read in torch 2.11.0 and 2.14.1.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader, _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem
from torch.futures import Future

from lightning_ccn.sharding.digests import Verifier
from lightning_ccn.sharding.errors import ShardingError
from lightning_ccn.sharding.manifest import INDEX

_DCP = "torch.distributed.checkpoint"
_RECORDS = {
    (f"{_DCP}.metadata", "Metadata"),
    (f"{_DCP}.metadata", "TensorStorageMetadata"),
    (f"{_DCP}.metadata", "BytesStorageMetadata"),
    (f"{_DCP}.metadata", "TensorProperties"),
    (f"{_DCP}.metadata", "ChunkStorageMetadata"),
    (f"{_DCP}.metadata", "MetadataIndex"),
    (f"{_DCP}.metadata", "StorageMeta"),
    (f"{_DCP}.filesystem", "_StorageInfo"),
}
_IGNORED = {  # values that reading does not need
    (f"{_DCP}.metadata", "_MEM_FORMAT_ENCODING"),
    ("torch.serialization", "_get_layout"),
    ("pathlib", "PosixPath"),
}


class Reader(FileSystemReader):
    """DCP's reader of a folder, whose index is read without unpickling objects.

    Args:
        path: Folder of the checkpoint.
        files: Size of each of its files, by its manifest.
        digests: Digests of its files, by its manifest; what is read is compared with them.
    """

    def __init__(self, path: Path, files: Mapping[str, int], digests: Mapping[str, Sequence[str]]) -> None:
        super().__init__(path)
        self._verifier = Verifier(path, digests)
        self._folder, self._files = path, files
        self._refusal: ShardingError | None = None

    def read_metadata(self) -> Metadata:  # without `rank`, with which DCP would read another pickle
        """The index. DCP logs an error of this method with its traceback, so `set_up_storage_reader` raises it."""
        try:
            with open(self._folder / INDEX, "rb") as file:
                return read_index(file, self._files)
        except (OSError, ValueError) as error:
            self._refusal = ShardingError(f"{INDEX} is refused: {error}")
            return Metadata({}, storage_data={}, storage_meta=StorageMeta())

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """DCP's method.

        Raises:
            ShardingError: The index was refused.
        """
        if self._refusal:
            raise self._refusal
        super().set_up_storage_reader(metadata, is_coordinator, *args, **kwargs)

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """DCP's method, file by file: what was compared is still in memory when it is read.

        Raises:
            ShardingError: A part of a file is not what was saved.
        """
        items: dict[str, list[ReadItem]] = {}
        for item in plan.items:
            items.setdefault(self.storage_data[item.storage_index].relative_path, []).append(item)
        for name, wanted in items.items():
            places = [self.storage_data[item.storage_index] for item in wanted]
            self._verifier.check(name, [(place.offset, place.length) for place in places])
            super().read_data(replace(plan, items=wanted), planner).wait()
        done: Future[None] = Future()
        done.set_result(None)
        return done


def read_index(file: IO[bytes], files: Mapping[str, int]) -> Metadata:
    """The index in `file`.

    Args:
        file: A `.metadata`.
        files: Size of each file that it may refer to.

    Raises:
        ValueError: It names something else than DCP's records, or does not describe whole tensors in these files.
    """
    try:
        return _build(_Unpickler(file).load(), files)
    except ValueError:
        raise
    except Exception as error:  # a hostile pickle can make the unpickler and `_build` raise anything
        raise ValueError(f"it is damaged ({type(error).__name__})") from None


class _Record:
    """Stands for an object in the pickle: the name of its class, and its state as it was written."""

    kind = ""
    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __getitem__(self, name: str) -> Any:
        return self.state[name]


class _Unpickler(pickle.Unpickler):
    """Makes plain values, sizes, dtypes and `_Record`s.

    Every record class is made for one load: a pickle can change a class that it names.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self._made: dict[tuple[str, str], Callable[..., Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name in the pickle.

        Raises:
            ValueError: DCP does not write this name.
        """
        if module == "torch" and isinstance(value := getattr(torch, name, None), torch.dtype):
            return value
        if (module, name) == ("torch", "Size"):
            return torch.Size
        if module.startswith("pathlib."):  # where Python 3.13 has its classes
            module = "pathlib"
        if (module, name) in _IGNORED:
            return self._made.setdefault((module, name), lambda *_: None)
        if (module, name) in _RECORDS:
            return self._made.setdefault((module, name), type(name, (_Record,), {"kind": name}))
        raise ValueError(f"it names {module}.{name}; only DCP's own records are read, and no code is run")

    def persistent_load(self, pid: Any) -> Any:
        """DCP writes none.

        Raises:
            ValueError: Always.
        """
        raise ValueError("it refers to an object outside")


def _build(index: Any, files: Mapping[str, int]) -> Metadata:
    """DCP's objects for the records of an index."""
    _expect(index, "Metadata")
    stored = {_index(key): _place(place, files) for key, place in index["storage_data"].items()}
    entries = {_text(key): _entry(key, entry, stored) for key, entry in index["state_dict_metadata"].items()}
    return Metadata(entries, storage_data=stored, storage_meta=StorageMeta())


def _expect(value: Any, kind: str) -> None:
    if not isinstance(value, _Record) or value.kind != kind:
        raise ValueError(f"it has a {type(value).__name__} in the place of a {kind}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a name in it is not text")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("a number in it is not a whole number")
    return value


def _size(value: Any) -> torch.Size:
    return torch.Size([_count(n) for n in value])


def _index(key: Any) -> MetadataIndex:
    _expect(key, "MetadataIndex")
    offset = key.state.get("offset")
    return MetadataIndex(_text(key["fqn"]), None if offset is None else _size(offset))


def _place(place: Any, files: Mapping[str, int]) -> _StorageInfo:
    _expect(place, "_StorageInfo")
    name, offset, length = _text(place["relative_path"]), _count(place["offset"]), _count(place["length"])
    if name not in files or offset + length > files[name]:
        raise ValueError(f"it refers to bytes {offset:,} to {offset + length:,} of {name!r}, which are not there")
    if place.state.get("transform_descriptors"):
        raise ValueError("it names a transformation of the files, which this program does not write")
    return _StorageInfo(name, offset, length)


def _entry(
    key: str, entry: Any, stored: Mapping[MetadataIndex, _StorageInfo]
) -> TensorStorageMetadata | BytesStorageMetadata:
    if isinstance(entry, _Record) and entry.kind == "BytesStorageMetadata":
        return BytesStorageMetadata()
    _expect(entry, "TensorStorageMetadata")
    _expect(entry["properties"], "TensorProperties")
    dtype, size = entry["properties"].state[0], _size(entry["size"])
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{key} has no dtype")
    chunks, found = [], 0
    for chunk in entry["chunks"]:
        _expect(chunk, "ChunkStorageMetadata")
        offsets, sizes = _size(chunk["offsets"]), _size(chunk["sizes"])
        inside = all(o + n <= whole for o, n, whole in zip(offsets, sizes, size, strict=True))
        if not inside or MetadataIndex(key, offsets) not in stored:
            raise ValueError(f"a part of {key} is outside the tensor, or in no file")
        chunks.append(ChunkStorageMetadata(offsets, sizes))
        found += math.prod(sizes)
    if found != math.prod(size):
        raise ValueError(f"the parts of {key} have {found:,} values, the tensor has {math.prod(size):,}")
    return TensorStorageMetadata(TensorProperties(dtype=dtype), size, chunks)
