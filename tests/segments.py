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


def behaviours_of(segments: Sequence[Sequence[int]]) -> PaddedBehaviours:
    """The padded form of these behaviours."""
    lengths = torch.tensor([len(own) for own in segments], dtype=torch.int64)
    flat = torch.tensor([index for own in segments for index in own], dtype=torch.int64)
    return pad_behaviours(flat, lengths.cumsum(0) - lengths, lengths, max(map(len, segments), default=0) or 1)
