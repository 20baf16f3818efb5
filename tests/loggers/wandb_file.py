"""Reads what the W&B client wrote into a run's folder, as its server would."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wandb
from wandb.proto.wandb_internal_pb2 import ArtifactRecord, Record, RunRecord  # type: ignore[attr-defined]

BLOCK, HEADER = 32768, 7  # of LevelDB's log, the format of `.wandb` files
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class WandbFile:
    """One life of a W&B run: what `wandb sync` would upload from one `.wandb` file.

    Attributes:
        path: of the file.
        run: the run as it began.
        config, summary: as they stood at the end.
        history: one dict a logged line.
        artifacts: in the order in which they were logged.
        exit_code: None if the run was not closed.
    """

    path: Path
    run: RunRecord = field(default_factory=RunRecord)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[ArtifactRecord] = field(default_factory=list)
    exit_code: int | None = None

    def column(self, name: str) -> list[tuple[int, Any]]:
        """(step, value) of each line that has `name`."""
        return [(line["trainer/global_step"], line[name]) for line in self.history if name in line]


def read(run_folder: Path) -> list[WandbFile]:
    """Every life of the W&B run of `run_folder`, oldest first; ends this process's client, so that all is written."""
    wandb.teardown()
    return [_read(path) for path in sorted(run_folder.glob("wandb/*run-*/*.wandb"))]


def _read(path: Path) -> WandbFile:
    found = WandbFile(path)
    for content in _records(path.read_bytes()):
        record = Record.FromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            _update(found.config, record.run.config.update)
        elif kind == "config":
            _update(found.config, record.config.update)
        elif kind == "summary":
            _update(found.summary, record.summary.update)
        elif kind == "history":
            line: dict[str, Any] = {}
            _update(line, record.history.item)
            found.history.append(line)
            found.summary |= line
        elif kind == "artifact":
            found.artifacts.append(record.artifact)
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def _update(values: dict[str, Any], items: Any) -> None:
    for item in items:
        *path, last = item.nested_key or [item.key]
        place = values
        for key in path:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)


def _records(content: bytes) -> Iterator[bytes]:
    position, record = HEADER, b""  # the file's own header is as long as a fragment's
    while position + HEADER <= len(content):
        left = BLOCK - position % BLOCK
        if left < HEADER:  # a block's trailer
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        fragment = content[position + HEADER : position + HEADER + length]
        if len(fragment) < length:  # cut off by a crash
            return
        record = fragment if kind in (FULL, FIRST) else record + fragment
        if kind in (FULL, LAST):
            yield record
        position += HEADER + length
