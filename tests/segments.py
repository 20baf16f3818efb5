"""For tests of ragged data: segments as lists."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lightning_ccn.data.padding import PaddedBehaviours, Places, pad_behaviours


def places_of(segment: Sequence[int], segments: int) -> Places:
    """Places of rows whose segments are given, in any order."""
    position = [segment[:at].count(own) for at, own in enumerate(segment)]
    longest = max(position, default=0) + 1
    place = [own * longest + before for own, before in zip(segment, position, strict=True)]
    return Places(torch.tensor(place, dtype=torch.int64), segments, longest)


def behaviours_of(segments: Sequence[Sequence[int]], gaps: Sequence[Sequence[int]] | None = None) -> PaddedBehaviours:
    """The padded form of these behaviours, and of their time gaps."""
    lengths = torch.tensor([len(own) for own in segments], dtype=torch.int64)
    flat, gap = (
        None if of is None else torch.tensor([value for own in of for value in own], dtype=torch.int64)
        for of in (segments, gaps)
    )
    assert flat is not None
    longest = max(map(len, segments), default=0) or 1
    return pad_behaviours(flat, lengths, longest, gap)
