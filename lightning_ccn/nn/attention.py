"""Multi-head target attention (Eq. 1 and 2) over page-major sequences."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding as gather
from torch.nn.functional import scaled_dot_product_attention


class TargetAttention(nn.Module):
    """Attention of items to a behaviour sequence.

    Items are the queries (targets or triggers); behaviours are keys and values. Both are ragged in *segments*: a page
    with its short sequence, or a (page, category) group with the long behaviours of that category. Keys and values
    are projected once per distinct item of the batch, however many pages it appears on.

    Eq. 2 prints its sqrt(d) outside the softmax. Here the logits are divided by sqrt(d / heads), as is usual.

    Args:
        dim: Width of an item's embedding; a multiple of `heads`.
        heads: h of Eq. 1.
        gain: Factor on the logits. Embeddings start within +-0.05 and the logits near 0.001; without a gain, attention
            stays close to a plain mean for most of the only epoch. (Chosen on SIM, see docs/reproduction.md.)
    """

    def __init__(self, dim: int, heads: int, gain: float = 20.0) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(
                f"heads: an item's embedding of width {dim} cannot be split into {heads} heads; change heads or dim"
            )
        self.heads, self.scale = heads, gain / math.sqrt(dim / heads)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)

    def forward(
        self, query: Tensor, query_lengths: Tensor, item: Tensor, behaviour: Tensor, behaviour_lengths: Tensor
    ) -> Tensor:
        """Attends within each segment.

        Args:
            query: float [queries, dim], segment-major.
            query_lengths: int64 [segments].
            item: float [distinct, dim], the batch's distinct items.
            behaviour: int64 [behaviours], index into the distinct items, segment-major.
            behaviour_lengths: int64 [segments].

        Returns:
            float [queries, dim]; zeros where the segment has no behaviours.
        """
        queries, row, column = _places(query_lengths)
        behaviours, key_row, key_column = _places(behaviour_lengths)
        segments = query_lengths.numel()
        projected = self.query(query)  # [queries, dim], in autocast's dtype where that is on
        padded_query = projected.new_zeros(segments, queries, query.shape[1])
        padded_query[row, column] = projected  # [segments, queries, dim]
        index = behaviour.new_zeros(segments, behaviours)
        index[key_row, key_column] = behaviour  # [segments, behaviours]
        seen = torch.arange(behaviours, device=index.device) < behaviour_lengths[:, None]  # [segments, behaviours]
        # a segment without behaviours attends to its padding; its result is zeroed below
        mask = (seen | (behaviour_lengths == 0)[:, None])[:, None, None, :]
        attended = scaled_dot_product_attention(
            self._split(padded_query),
            self._split(gather(index, self.key(item))),
            self._split(gather(index, self.value(item))),
            attn_mask=mask,
            scale=self.scale,
        )  # [segments, heads, queries, dim / heads]
        attended = attended.transpose(1, 2).flatten(2)[row, column]  # [queries, dim]
        return attended * (behaviour_lengths > 0)[row, None]

    def search(self, query: Tensor, group: Tensor, item: Tensor, long: Tensor, long_lengths: Tensor) -> Tensor:
        """Attends each query to the long behaviours of its own category: SIM's hard search.

        Args:
            query: float [queries, dim].
            group: int64 [queries], the (page, category) group of each query.
            item: float [distinct, dim].
            long: int64 [searched behaviours], index into the distinct items, group-major.
            long_lengths: int64 [groups].

        Returns:
            float [queries, dim]; zeros where the group is empty.
        """
        order = torch.argsort(group, stable=True)
        queried, query_lengths = torch.unique_consecutive(group[order], return_counts=True)
        starts = long_lengths.cumsum(0) - long_lengths
        _, row, column = _places(long_lengths[queried])
        behaviour = long[starts[queried][row] + column]  # only of the groups that have a query
        attended = self(query[order], query_lengths, item, behaviour, long_lengths[queried])
        return attended[torch.argsort(order)]

    def _split(self, x: Tensor) -> Tensor:
        """[segments, n, dim] -> [segments, heads, n, dim / heads]."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


def _places(lengths: Tensor) -> tuple[int, Tensor, Tensor]:
    """Positions of a ragged tensor's elements in the padded tensor: (padded length, row, column)."""
    longest = max(int(lengths.max()) if lengths.numel() else 0, 1)
    row = torch.repeat_interleave(lengths)
    starts = lengths.cumsum(0) - lengths
    return longest, row, torch.arange(row.numel(), device=lengths.device) - starts[row]
