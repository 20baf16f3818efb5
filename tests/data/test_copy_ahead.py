"""The order of reading, copying and handing out; `tests/gpu` has the copies themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_ccn.data.copy_ahead import copied_ahead


class Watched:
    """A batch that notes what happens to it."""

    def __init__(self, name: str, happened: list[str]) -> None:
        self.name, self.happened = name, happened

    def pin_memory(self) -> Watched:
        return self

    def to(self, device: torch.device, non_blocking: bool = False) -> Watched:
        assert non_blocking
        self.happened.append(f"copy {self.name}")
        return self

    def record_stream(self, stream: Any) -> None:
        assert stream.name == "training"
        self.happened.append(f"used {self.name}")


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    events: list[str] = []
    training = SimpleNamespace(name="training", wait_event=lambda event: events.append(f"wait for {event}"))
    copying = SimpleNamespace(name="copying", record_event=lambda: f"the copy after {events[-1]}")
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: copying)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: training)
    return events


def test_the_next_batch_is_on_its_way_when_one_is_handed_out(happened: list[str]) -> None:
    def read() -> Iterator[Any]:
        for name in "abc":
            happened.append(f"read {name}")
            yield Watched(name, happened)

    for batch in copied_ahead(read(), torch.device("cuda", 0)):
        happened.append(f"step {batch.name}")
    assert happened == [
        *("read a", "copy a", "read b", "copy b"),
        *("wait for the copy after copy a", "used a", "step a", "read c", "copy c"),
        *("wait for the copy after copy b", "used b", "step b"),
        *("wait for the copy after copy c", "used c", "step c"),
    ]


def test_no_batches_are_no_batches(happened: list[str]) -> None:
    assert list(copied_ahead([], torch.device("cuda", 0))) == []
    assert happened == []
