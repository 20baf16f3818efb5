"""Multi-head target attention (Eq. 1 and 2) over page-major sequences."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn.functional import embedding as gather
from torch.nn.functional import scaled_dot_product_attention

from lightning_ccn.data.padding import PaddedBehaviours, Places


class TargetAttention(nn.Module):
    """Attention of items to a behaviour sequence.

    Items are the queries (targets or triggers); behaviours are keys and values. Both are in *segments*: a page with its
    short sequence, or a (page, category) group with the long behaviours of that category (SIM's hard search). Keys and
    values are projected once per distinct item of the batch, however many pages it appears on.

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

    def forward(self, query: Tensor, places: Places, item: Tensor, behaviours: PaddedBehaviours) -> Tensor:
        """Attends within each segment.

        Args:
            query: float [queries, dim].
            places: The segment of each query, such as `PageBatch.of_page`.
            item: float [distinct, dim], the batch's distinct items.
            behaviours: The behaviours of each segment, such as `PageBatch.short_of_page`.

        Returns:
            float [queries, dim]; zeros where the segment has no behaviours.
        """
        queries = self._split(places.pad(self.query(query)))
        keys, values = (self._split(gather(behaviours.index, of(item))) for of in (self.key, self.value))
        attended = scaled_dot_product_attention(queries, keys, values, attn_mask=behaviours.mask, scale=self.scale)
        attended = places.unpad(attended.transpose(1, 2).flatten(2))  # [queries, dim]
        return attended * places.of_segment(behaviours.filled)  # what an empty segment attended to was padding

    def _split(self, x: Tensor) -> Tensor:
        """[segments, n, dim] -> [segments, heads, n, dim / heads]."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)
