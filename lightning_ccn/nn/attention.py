"""Multi-head target attention (Eq. 1 and 2) over page-major sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from lightning_ccn.data.padding import PaddedBehaviours, Places
from lightning_ccn.nn.gather import gather_padded
from lightning_ccn.nn.weighted_means import weighted_means


class TargetAttention(nn.Module):
    """Attention of items to a behaviour sequence.

    Items are the queries (targets or triggers); behaviours are keys and values. Both are in *segments*: a page with its
    short sequence, or a target with the long behaviours of its category (SIM's hard search). For segments of several
    queries, keys and values are projected once per distinct item of the batch, however many pages it appears on; or
    once per behaviour, if the behaviours are fewer.

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
        self, query: Tensor, places: Places, item: Tensor, behaviours: PaddedBehaviours, time: Tensor | None = None
    ) -> Tensor:
        """Attends within each segment.

        Args:
            query: float [queries, dim].
            places: The segment of each query, such as `PageBatch.of_page`.
            item: float [distinct, dim], the batch's distinct items.
            behaviours: The behaviours of each segment, such as `PageBatch.short_of_page`.
            time: float [time gaps, dim], added to the item of each behaviour by its gap; None: the gaps do not count.

        Returns:
            float [queries, dim]; zeros where the segment has no behaviours.
        """
        if places.place is None:
            return self._of_one(query, item, behaviours, time)
        queries, keys, values = self._projected(query, places, item, behaviours, time)
        return _ragged(_attend(queries, keys, values, behaviours.bias[:, None]), places, behaviours)

    def cascaded(
        self,
        query: Tensor,
        places: Places,
        item: Tensor,
        behaviours: PaddedBehaviours,
        then: TargetAttention,
        asked: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Attends, and attends once more within what that has kept.

        The second attention has one query a segment. With logits a_ij of query i for behaviour j, and b_j of the
        segment's, its weights are softmax_j(a_ij + b_j): the product of both softmaxes, scaled to a sum of 1. So b is
        an additive mask of the first attention, and no pair needs more than that.

        Args:
            query, places, item, behaviours: See `forward`; `places` has a place for each query.
            then: The second attention.
            asked: float [segments, dim], its queries.

        Returns:
            What the first and what the second attention finds, float [queries, dim] each; zeros where the segment has
            no behaviours.
        """
        queries, keys, values = self._projected(query, places, item, behaviours)
        first = _attend(queries, keys, values, behaviours.bias[:, None])
        mask, values = then.as_mask(asked, item, behaviours)
        second = _attend(queries, keys, values, mask)
        return _ragged(first, places, behaviours), _ragged(second, places, behaviours)

    def as_mask(self, query: Tensor, item: Tensor, behaviours: PaddedBehaviours) -> tuple[Tensor, Tensor]:
        """This attention as the second of a cascade: its logits, and its values.

        Args:
            query: float [segments, dim], one per segment.
            item, behaviours: See `forward`.

        Returns:
            The logits, float [segments, heads, 1, longest], -inf where there is no behaviour; and the values, float
            [segments, heads, longest, dim / heads].
        """
        logits = self._asked(query) @ gather_padded(behaviours.index, item).mT  # [segments, heads, longest]
        (values,) = self._of_behaviours([self.value], item, behaviours)
        return (behaviours.bias + logits)[:, :, None], values

    def _projected(
        self, query: Tensor, places: Places, item: Tensor, behaviours: PaddedBehaviours, time: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values: [segments, heads, n, dim / heads] each."""
        queries = self._split(places.pad(linear(query, self.query.weight * self.scale)))
        keys, values = self._of_behaviours([self.key, self.value], item, behaviours, time)
        return queries, keys, values

    def _of_behaviours(
        self, projections: Sequence[nn.Linear], item: Tensor, behaviours: PaddedBehaviours, time: Tensor | None = None
    ) -> list[Tensor]:
        """Projections of each behaviour: [segments, heads, longest, dim / heads] each.

        Of the items before they are gathered, or of the behaviours after it, whichever are fewer.
        """
        # compiled and exported graphs are for all sizes, and a look at a size would fix it
        if not torch.compiler.is_compiling() and behaviours.index.numel() < item.shape[0]:
            rows = linear(_gathered(behaviours, item, time), torch.cat([of.weight for of in projections]))
            return [self._split(part) for part in rows.chunk(len(projections), 2)]
        return [self._split(_gathered(behaviours, of(item), None if time is None else of(time))) for of in projections]

    def _of_one(self, query: Tensor, item: Tensor, behaviours: PaddedBehaviours, time: Tensor | None) -> Tensor:
        """The same for one query per segment: float [segments, dim] -> float [segments, dim].

        With few queries, it is less work to bring the query to the items than the keys and values to the query:
        (W_q q) (W_k x) = (q W_q^T W_k) x and sum_j p_j (W_v x_j) = W_v (sum_j p_j x_j). So the items are gathered once,
        and all heads share them.
        """
        items = _gathered(behaviours, item, time)  # [segments, longest, dim]
        means = weighted_means(self._asked(query), items, behaviours.bias)  # [segments, heads, dim]
        return _project(means, self._of_heads(self.value)) * behaviours.filled

    def _asked(self, query: Tensor) -> Tensor:
        """What each head multiplies an item with for its logit: [segments, dim] -> [segments, heads, dim]."""
        w_query, w_key = self._of_heads(self.query), self._of_heads(self.key)
        asked = torch.einsum("hni,hnj->ihj", w_query * self.scale, w_key).flatten(1)  # [dim, heads * dim]
        return (query @ asked).unflatten(1, (self.heads, -1))

    def _of_heads(self, projection: nn.Linear) -> Tensor:
        """Each head's part of a projection: [heads, dim / heads, dim]."""
        return projection.weight.unflatten(0, (self.heads, -1))

    def _split(self, x: Tensor) -> Tensor:
        """[segments, n, dim] -> [segments, heads, n, dim / heads]."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


def _gathered(behaviours: PaddedBehaviours, item: Tensor, time: Tensor | None) -> Tensor:
    """The row of each behaviour's item, plus that of its time gap: [segments, longest, dim]."""
    rows = gather_padded(behaviours.index, item)
    if time is None:
        return rows
    if behaviours.gap is None:
        raise ValueError("the batch has no time gaps: only for a system that says `reads_gaps = True` are they read")
    return rows + gather_padded(behaviours.gap, time)


def _ragged(attended: Tensor, places: Places, behaviours: PaddedBehaviours) -> Tensor:
    """[segments, heads, n, size] -> [queries, heads * size]; what an empty segment attended to was padding."""
    return places.unpad(attended.transpose(1, 2).flatten(2) * behaviours.filled[:, :, None])


def _attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """[segments, heads, n, size]; on a CPU, torch's fused kernel takes up to twice as long for sequences this short."""
    if queries.is_cuda:
        return scaled_dot_product_attention(queries, keys, values, attn_mask=bias, scale=1.0)
    return (queries @ keys.mT + bias).softmax(3) @ values


def _project(means: Tensor, weight: Tensor) -> Tensor:
    """Each head's own projection, [heads, size, dim], of its means: [segments, heads, dim] -> [segments, dim]."""
    if means.is_cuda:
        # The gradient of a batched product's weights is a sum over all segments for a few numbers: work for four of a
        # GPU's multiprocessors. One larger product with zeros in it is split over all of them.
        return means.flatten(1) @ torch.block_diag(*weight.mT)
    return torch.einsum("nhd,hsd->nhs", means, weight).flatten(1)
