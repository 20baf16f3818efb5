"""Batches on their way to a GPU: each is copied, and announced, while the training works on the one before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

from lightning_ccn.data.batch import PackedBatch, PageBatch


def copied_ahead(batches: Iterable[PageBatch | PackedBatch], device: torch.device) -> Iterator[PageBatch]:
    """The batches, on a GPU; the next one is read, page-locked and copied when the caller asks for this one.

    The copy runs on a stream of its own. Neither the host nor the caller's stream waits for it, unless the caller is
    faster than the copy. Whoever counts the batches that the caller has got does not count the one that is ahead.

    Args:
        batches: Batches in the host's memory.
        device: The GPU.
    """
    stream = torch.cuda.Stream(device)
    ahead: tuple[PackedBatch, PageBatch, torch.cuda.Event] | None = (
        None  # on the host, on the GPU, and when it is there
    )
    for batch in batches:
        pinned = batch.pin_memory()
        with torch.cuda.stream(stream):
            on_gpu = pinned.to(device, non_blocking=True)
            there = stream.record_event()
        if ahead is not None:
            yield _arrived(ahead, device)
        ahead = pinned, on_gpu, there
    if ahead is not None:
        yield _arrived(ahead, device)


def _arrived(ahead: tuple[PackedBatch, PageBatch, torch.cuda.Event], device: torch.device) -> PageBatch:
    _, batch, there = ahead
    current = torch.cuda.current_stream(device)
    current.wait_event(there)
    batch.record_stream(current)  # its memory is not used again before the work on it is done
    return batch


def announced_ahead(batches: Iterable[PageBatch], announce: Callable[[PageBatch], None]) -> Iterator[PageBatch]:
    """The batches; `announce` gets each one before the one that precedes it is handed out."""
    ahead: PageBatch | None = None
    for batch in batches:
        announce(batch)
        if ahead is not None:
            yield ahead
        ahead = batch
    if ahead is not None:
        yield ahead
