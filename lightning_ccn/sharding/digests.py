"""Digests of a checkpoint's files: a file that was changed at the same size, or is another's, is not loaded.

They are of blocks, so that a rank that needs a part of a file reads that part only, and are computed from the bytes on
their way to the disk. They guard against damage and mix-ups, for which CRC-32 is enough, and several times as fast as a
cryptographic digest: whoever can write the files can also write `checkpoint.json`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from lightning_ccn.sharding.errors import ShardingError

BLOCK = 16 << 20  # bytes


class Digester:
    """Digests of the blocks of a file, from its bytes in their order."""

    def __init__(self) -> None:
        self._digests: list[str] = []
        self._sum, self._length = 0, 0  # of the last block

    def add(self, content: Any) -> None:
        """Adds bytes, or another object with a buffer."""
        view = memoryview(content).cast("B")
        while len(view):
            now = view[: BLOCK - self._length]
            self._sum, self._length = zlib.crc32(now, self._sum), self._length + len(now)
            view = view[len(now) :]
            if self._length == BLOCK:
                self._digests.append(_text(self._sum))
                self._sum, self._length = 0, 0

    @property
    def digests(self) -> list[str]:
        """Digest of each block; the last one may be smaller."""
        return [*self._digests, _text(self._sum)] if self._length else self._digests


class DigestingStream:
    """A file that is written from its beginning to its end, and digests what is written. All else is the file's."""

    def __init__(self, file: IO[bytes], digester: Digester) -> None:
        self._file, self._digester = file, digester

    def write(self, content: Any) -> int:
        """Writes and digests."""
        written = self._file.write(content)
        self._digester.add(content)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def digests_of(content: bytes) -> list[str]:
    """Digests of the blocks of a file with this content."""
    digester = Digester()
    digester.add(content)
    return digester.digests


def are_digests(value: Any, files: Mapping[str, int]) -> bool:
    """Whether `value` has the digests of each of some files, whose sizes are given, and nothing else."""
    return (
        isinstance(value, dict)
        and value.keys() <= files.keys()
        and all(
            isinstance(found, list)
            and len(found) == -(-files[name] // BLOCK)
            and all(isinstance(digest, str) for digest in found)
            for name, found in value.items()
        )
    )


class Verifier:
    """Compares parts of a checkpoint's files with their digests, each block once.

    Args:
        folder: The checkpoint.
        digests: Digests of each file, from the manifest; a file without them, as of an older version, is not compared.
    """

    def __init__(self, folder: Path, digests: Mapping[str, Sequence[str]]) -> None:
        self._folder, self._digests = folder, digests
        self._seen: set[tuple[str, int]] = set()

    def check(self, name: str, parts: Iterable[tuple[int, int]]) -> None:
        """Reads the blocks of some parts of a file.

        Args:
            name: The file.
            parts: Offset and length of each part.

        Raises:
            ShardingError: A block is not what was saved.
        """
        expected = self._digests.get(name)
        if expected is None:
            return
        wanted = {block for offset, length in parts for block in range(offset // BLOCK, -(-(offset + length) // BLOCK))}
        with open(self._folder / name, "rb") as file:
            for block in sorted(wanted):
                if (name, block) in self._seen:
                    continue
                file.seek(block * BLOCK)
                if _text(zlib.crc32(file.read(BLOCK))) != expected[block]:
                    raise ShardingError(
                        f"{name} is not what was saved: it was changed, damaged or replaced by another's (bytes from "
                        f"{block * BLOCK:,} on). Load another checkpoint"
                    )
                self._seen.add((name, block))


def _text(checksum: int) -> str:
    return f"{checksum:08x}"
