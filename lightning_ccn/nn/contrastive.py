"""The repulsion and the attraction loss over a page's exposed items (CCN, Eq. 5 to 10), in O(items).

An item's *label* is whether it was clicked. Each exposed item is a target in turn, and the page's other items are its
context: those with the other label repel it, those with the same label attract it. Both losses compare `e^s` of the
target (s is its collaborative degree) with an importance-weighted sum of `e^s` over such a set S: `sum_j w_j e^{s_j}`,
`w_j = e^{-s_j} / sum_k e^{-s_k}`. As every `e^{-s_j} e^{s_j}` is 1, the sum is the harmonic mean of the `e^{s_j}`; its
logarithm is `ln|S| - logsumexp_S(-s)`. So sums per page and label are enough, and no pair of items is ever formed.

Where the paper's formulas need an interpretation, this is ours:

- Eq. 7 takes the cosine similarity of two positive scalars, which is always 1. But the paper also mentions the cosine's
  period and requires `e^{s/xi}` to lie in [0, pi]. So here `e^{s/xi}` is an angle, and the cosine is that of the
  difference of two angles.
- Eq. 5 as printed pushes every target above its opposite-label context, so it also pushes unclicked items above clicked
  ones. The two pushes cancel, and where clicks are few the wrong one wins. The text wants interests and disinterests
  apart. Orientation "label" does that: for an unclicked target, -s replaces s throughout Eq. 5 and 6. Orientation
  "printed" is available for comparison.
- An item whose set is empty has loss 0 and counts in the mean, since the paper divides by |D|.

Computations use at least float32, whatever the autocast state.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

ORIENTATIONS = ("label", "printed")
AttractionPairs = Literal["all", "clicked", "by_label"]


class PageDegrees(NamedTuple):
    """The collaborative degrees of a batch's exposed items in groups, one for each page and label.

    Attributes:
        degree: float32 [items] (float64 if given so), s of Eq. 4, page-major.
        clicked: bool [items].
        group: int64 [items], 2 * page + label.
        size: [2 * pages], number of items of each group, of the degrees' type.
    """

    degree: Tensor
    clicked: Tensor
    group: Tensor
    size: Tensor

    @classmethod
    def of(cls, degree: Tensor, clicks: Tensor, page: Tensor, pages: int) -> PageDegrees:
        """Groups the items.

        Args:
            degree: float [items], s of Eq. 4, page-major.
            clicks: [items], any dtype, 0 or 1.
            page: int64 [items], the page of each item.
            pages: Number of pages; some may be empty.

        Raises:
            ValueError: Shapes that do not fit.
        """
        shapes = [list(tensor.shape) for tensor in (degree, clicks, page)]
        if len(shapes[0]) != 1 or shapes != 3 * [shapes[0]]:
            raise ValueError("degree is {}, clicks {}, page {}; all three should be [items]".format(*shapes))
        degree = degree.to(torch.promote_types(degree.dtype, torch.float32))
        clicked = clicks > 0
        group = torch.add(clicked, page, alpha=2)
        size = degree.new_zeros(2 * pages).index_add(0, group, torch.ones_like(degree))
        return cls(degree, clicked, group, size)

    def exponent(self, divisor: float, name: str) -> Tensor:
        """float [items], the degrees divided by an option of this name."""
        if not divisor > 0:
            raise ValueError(f"{name} is {divisor}; it divides the degree and must be above 0")
        return self.degree / divisor

    def sums(self, values: Tensor) -> Tensor:
        """float [items] -> [2 * pages], the sum of each group."""
        return torch.zeros_like(self.size).index_add(0, self.group, values)


def repulsion_loss(
    pages: PageDegrees,
    *,
    temperature: float,
    orientation: str = "label",
    detach_weights: bool = False,
) -> Tensor:
    """Mean over items of Eq. 5. N is the set of the page's items with the other label than the target, M its size.

    `-log( e^{s_i/tau} / (e^{s_i/tau} + M sum_{j in N} w_j e^{s_j/tau}) )`

    Args:
        pages: The degrees, of any size.
        temperature: tau of Eq. 5 and 6.
        orientation: "label" or "printed", see the module's docstring.
        detach_weights: Whether the weights of Eq. 6 are constants in the backward pass.

    Returns:
        Scalar, float32 (float64 for float64 degrees). 0, with a gradient of 0, where no page has both labels.

    Raises:
        ValueError: temperature not positive, or unknown orientation.

    >>> page = PageDegrees.of(torch.tensor([0.9, 0.2]), clicks=torch.tensor([1, 0]), page=torch.tensor([0, 0]), pages=1)
    >>> round(repulsion_loss(page, temperature=0.5).item(), 4)  # softplus((0.2 - 0.9) / 0.5) for both items
    0.2204
    """
    if orientation not in ORIENTATIONS:
        raise ValueError(f"orientation is {orientation!r}; use one of {', '.join(ORIENTATIONS)}")
    group, size = pages.group, pages.size
    own = context = pages.exponent(temperature, "temperature")  # [items]
    if orientation == "label":
        # An unclicked target uses -s for itself and for the clicked items; a clicked target uses s for both. So an
        # item enters the other label's context with the opposite of its own sign.
        own = torch.where(pages.clicked, own, -own)
        context = -own

    empty = size == 0  # [groups]
    lowest = torch.full_like(size, math.inf).scatter_reduce(0, group, context.detach(), "amin").masked_fill(empty, 0)
    # Relative to the group's lowest member nothing overflows, and that member's own term of 1 keeps the sum at 1 or
    # above. Empty groups get a 1, not a clamp: at a sum of exactly 1, torch 2.14 gives a clamp no gradient.
    total = pages.sums(torch.exp(lowest[group] - context)).masked_fill(empty, 1)
    log_size = size.clamp(min=1).log()
    log_mean = log_size + lowest - total.log()  # [groups], log of the harmonic mean
    if detach_weights:
        log_mean = log_mean.detach() + _without_value(pages.sums(context) / size.clamp(min=1))

    other = group ^ 1  # the same page's other label
    loss = softplus((log_size + log_mean).index_select(0, other) - own)
    return _mean(loss.masked_fill(empty[other], 0))


def attraction_loss(
    pages: PageDegrees,
    *,
    scale: float,
    label_weights: tuple[float, float] = (1.0, 1.0),
    detach_weights: bool = False,
) -> Tensor:
    """Mean over items of Eq. 7. P is the set of the page's other items with the target's label.

    `-log( (1 + cos(a_i - b_i)) / 2 )`, the angles `a_i = e^{s_i/xi}` and `b_i = sum_{j in P} w_j e^{s_j/xi}`.
    It pulls the two angles together as long as they differ by less than pi, which `check_scale` guarantees.

    Args:
        pages: The degrees, each within [0, 1].
        scale: xi of Eq. 7 and 8.
        label_weights: Weights of unclicked and of clicked targets, see `attraction_label_weights`.
        detach_weights: Whether the weights of Eq. 8 are constants in the backward pass.

    Returns:
        Scalar, float32 (float64 for float64 degrees). 0, with a gradient of 0, where no page has two items of
        one label.

    Raises:
        ValueError: scale not positive.

    >>> degree, clicks = torch.tensor([0.9, 0.2, 0.5]), torch.tensor([1, 1, 0])
    >>> page = PageDegrees.of(degree, clicks, page=torch.tensor([0, 0, 0]), pages=1)
    >>> round(attraction_loss(page, scale=0.8).item(), 4)  # angles 3.08 and 1.28, and one item without a set
    0.6307
    """
    others_size = pages.size[pages.group] - 1  # [items]
    alone = others_size == 0
    # An item without a set gets an exponent of 0 and a difference of 0, so its loss and gradient are exactly 0.
    exponent = pages.exponent(scale, "scale").masked_fill(alone, 0)
    # The harmonic mean of the others' angles. With degrees within [0, 1] and a scale that `check_scale` passes, every
    # term is between .24 and 1, so little is lost in the difference of the group's sum and the item's own term.
    inverse = torch.exp(-exponent)
    others = pages.sums(inverse).index_select(0, pages.group) - inverse
    others_angle = others_size / others.masked_fill(alone, 1)
    if detach_weights:
        mean = (pages.sums(exponent).index_select(0, pages.group) - exponent) / others_size.clamp(min=1)
        others_angle = others_angle.detach() * torch.exp(_without_value(mean))

    difference = (exponent.exp() - others_angle).masked_fill(alone, 0)
    # (1 + cos x) / 2 = cos(x/2)^2; near pi the sum loses its digits in float32 and the square does not. The clamp cuts
    # off the pole at pi: the gradient in x grows to 1e3 before it, and is 0 within 2e-3 of pi.
    loss = -2 * torch.cos(difference / 2).abs().clamp(min=1e-3).log()
    if label_weights != (1.0, 1.0):
        of_unclicked, of_clicked = label_weights
        loss = loss * torch.where(pages.clicked, of_clicked, of_unclicked)
    return _mean(loss)


def attraction_weight(clicked_per_page: float, unclicked_per_page: float) -> float:
    """P_{S-} / P_{S+} of Eq. 9, 10 and 12: the ratio of pairs with different labels to pairs with the same label.

    Args:
        clicked_per_page: N_1, the mean number of clicked items on a training page.
        unclicked_per_page: N_0, the mean number of unclicked items.

    Raises:
        ValueError: A count is negative or not finite; or a page has, on average, no pair of items, or no pair with the
            same label, and the ratio does not exist.

    >>> attraction_weight(1, 9)
    0.25
    """
    counts = {"clicked_per_page": clicked_per_page, "unclicked_per_page": unclicked_per_page}
    for name, count in counts.items():
        if not (math.isfinite(count) and count >= 0):
            raise ValueError(f"{name} is {count}; a mean number of items must be finite and 0 or more")
    if clicked_per_page + unclicked_per_page <= 1:
        raise ValueError(
            f"a page has {clicked_per_page + unclicked_per_page:g} items on average, so there is no pair to compare; "
            "the contrastive losses need pages with two or more items"
        )
    # Twice the numbers of pairs. The denominator of Eq. 9 cancels in the ratio.
    like = clicked_per_page * (clicked_per_page - 1) + unclicked_per_page * (unclicked_per_page - 1)
    unlike = 2 * clicked_per_page * unclicked_per_page
    if like <= 0:
        raise ValueError(
            f"with {clicked_per_page:g} clicked and {unclicked_per_page:g} unclicked items on a page, Eq. 9 "
            "counts no pair with the same label, so the attraction weight does not exist; set attraction_ratio, or "
            "train without the attraction loss"
        )
    return unlike / like


def attraction_label_weights(
    pairs: AttractionPairs, clicked_per_page: float, unclicked_per_page: float
) -> tuple[float, float]:
    """What the attraction of unclicked and of clicked targets is multiplied by, beside P_{S-} / P_{S+}.

    Eq. 9 counts pairs of clicked and pairs of unclicked items together, and Eq. 12 weights their sum. `all` is that.
    `clicked` is another reading: only items that were clicked together attract each other. `by_label` weights the
    pairs of each label by their own share: P_{S-} over the share of pairs of this label. With `all`, the many
    unclicked items have nearly all of the weight.

    Args:
        pairs: The reading.
        clicked_per_page: N_1, the mean number of clicked items on a training page.
        unclicked_per_page: N_0, the mean number of unclicked items. With `by_label`, each item of a label counts as
            having one other at least, so that the weight stays finite where such pairs are rare. Where there are none,
            the loss is 0 whatever the weight.

    Raises:
        ValueError: `by_label`, where Eq. 9 counts no pair with the same label.

    >>> attraction_label_weights("by_label", 2, 5)  # 2 and 20 ordered pairs, 22 in all
    (1.1, 11.0)
    """
    if pairs != "by_label":
        return (0.0 if pairs == "clicked" else 1.0), 1.0
    counts = unclicked_per_page, clicked_per_page
    like = sum(count * (count - 1) for count in counts)
    if like <= 0:
        raise ValueError(
            f"attraction_pairs by_label: with {clicked_per_page:g} clicked and {unclicked_per_page:g} unclicked items "
            "on a page, Eq. 9 counts no pair with the same label; use all or clicked, or leave out the attraction loss"
        )
    unclicked, clicked = (like / (count * max(count - 1, 1)) if count else 0.0 for count in counts)
    return unclicked, clicked


def check_scale(bound: str, scale: float) -> None:
    """Rejects a bound of the degree and a scale xi with which the angles of Eq. 7 may differ by pi or more.

    With `s = sigmoid(.)` the angles `e^{s/xi}` lie within (1, e^{1/xi}). Without a bound no xi is enough.

    Args:
        bound: Bound of the degree, "sigmoid" or "none".
        scale: xi of Eq. 7 and 8.

    Raises:
        ValueError: The pair gives no guarantee (the message names an xi that does), or the bound is unknown.

    >>> check_scale("sigmoid", 0.8)
    """
    least = 1 / math.log1p(math.pi)  # e^{1/xi} - 1 < pi
    remedy = f"use the sigmoid bound with a scale xi of {least:.4f} or more, or train without the attraction loss"
    if bound not in ("sigmoid", "none"):
        raise ValueError(f"bound is {bound!r}; use 'sigmoid' or 'none'")
    if bound == "none":
        raise ValueError(f"no scale xi keeps the angles of Eq. 7 within pi without a bound; {remedy}")
    if not scale > least:
        raise ValueError(f"with scale xi {scale:g} the angles of Eq. 7 may differ by pi or more; {remedy}")


def _without_value(mean: Tensor) -> Tensor:
    """0, with the gradient that the logarithm of the weighted sum has if its weights are constants.

    d ln(sum_j w_j e^{x_j}) / d x_j = w_j e^{x_j} / sum_k w_k e^{x_k} = 1 / |S|, as all w_j e^{x_j} are equal: the
    gradient of the exponents' mean.
    """
    return mean - mean.detach()


def _mean(loss: Tensor) -> Tensor:
    """Mean over items; for a batch without items a 0 that is still part of the graph."""
    return loss.sum() / max(len(loss), 1)
