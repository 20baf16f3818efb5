"""Padded forms of ragged tensors, for kernels that need rectangles. Nothing here makes the host wait for a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Places:
    """Where the rows of a ragged tensor are in its padded form [segments, longest, ...].

    Attributes:
        place: Int64 [rows]: segment * longest + position within the segment. None if each segment has exactly one row,
            so that both forms are the same.
        segments: Number of segments.
        longest: Number of rows of the longest segment; at least 1.
    """

    place: Tensor | None
    segments: int
    longest: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.segments if self.place is None else self.place.numel()

    def pad(self, rows: Tensor) -> Tensor:
        """float [rows, dim] -> [segments, longest, dim], zeros where there is no row."""
        if self.place is None:
            return rows.unsqueeze(1)
        dim = rows.shape[1]
        padded = rows.new_zeros(self.segments * self.longest, dim)
        return padded.index_copy(0, self.place, rows).view(self.segments, self.longest, dim)

    def unpad(self, padded: Tensor) -> Tensor:
        """[segments, longest, dim] -> [rows, dim]."""
        flat = padded.flatten(0, 1)
        return flat if self.place is None else flat.index_select(0, self.place)


@dataclass(frozen=True)
class PaddedBehaviours:
    """Behaviours in segments: a page with its short sequence, or a (page, category) group of the long one.

    Attributes:
        index: Int64 [segments, longest], index into the batch's distinct items; any valid index where there is none.
        filled: Bool [segments, 1], whether the segment has any behaviour.
        bias: Float32 [segments, 1, longest], added to attention's logits: -inf where there is no behaviour, else 0;
            0 throughout an empty segment, since a softmax over nothing would be NaN.
        gap: Int64 [segments, longest], the bucket of each behaviour's time before the page, see `time_gaps`; any bucket
            where there is none. None if the reader was not told to read the times.
    """

    index: Tensor
    filled: Tensor
    bias: Tensor
    gap: Tensor | None = None

    @property
    def seen(self) -> Tensor:
        """Bool [segments, longest], whether there is a behaviour."""
        return (self.bias == 0).squeeze(1) & self.filled

    def of(self, segment: Tensor) -> PaddedBehaviours:
        """The behaviours of these segments, int64 [any number]; a segment may be among them many times."""
        gap = None if self.gap is None else self.gap[segment]
        return PaddedBehaviours(self.index[segment], self.filled[segment], self.bias[segment], gap)


def pad_behaviours(behaviour: Tensor, lengths: Tensor, longest: int, gap: Tensor | None = None) -> PaddedBehaviours:
    """The padded form of a ragged tensor of behaviours.

    Args:
        behaviour: Int64 [behaviours], index into the batch's distinct items, segment by segment.
        lengths: Int64 [segments]; their sum is `behaviours`.
        longest: The largest of the lengths, or more; at least 1.
        gap: Int64 [behaviours], the bucket of each behaviour's time before the page.
    """
    starts = lengths.cumsum(0) - lengths
    lengths = lengths.unsqueeze(1)  # [segments, 1]
    column = torch.arange(longest, device=lengths.device)
    places = column + starts.unsqueeze(1)
    behaviours = behaviour.numel()
    # beyond a segment's end there are others' behaviours, and beyond the last one nothing
    if behaviours:
        places.clamp_(max=behaviours - 1)
        index, gaps = behaviour.take(places), None if gap is None else gap.take(places)
    else:
        index = torch.zeros_like(places)
        gaps = None if gap is None else index
    return PaddedBehaviours(index, *filled_and_bias(column, lengths), gaps)


def filled_and_bias(column: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """`filled` and `bias` of `PaddedBehaviours`, from int64 [longest], 0 and up, and int64 [segments, 1]."""
    filled = lengths > 0
    beyond = (column >= lengths) & filled  # [segments, longest]
    return filled, torch.where(beyond, -torch.inf, 0.0).unsqueeze(1)
