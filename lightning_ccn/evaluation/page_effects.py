"""How far each page view moves a metric of a split: its error over pages, and that of a difference of two systems.

The pages of a split are a sample of those that users could have seen. The bootstrap over pages asks how much a metric
varies with that sample. For a metric that is a smooth function of sums over pages, the bootstrap's variance is, up to
terms of higher order, the sum of the squared effects of the pages (the infinitesimal jackknife; Efron 1982). The
effects of two systems on the same pages can be subtracted, so the difference of two systems, whose errors are mostly
those of the same pages, has an error of its own, at no further cost. A user's pages are alike, so they are taken
together, as a bootstrap over users would.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def auc_effects(logits: Floats, clicks: npt.NDArray[np.bool_], page_lengths: npt.NDArray[np.int64]) -> Floats:
    """Effect of each page on the AUC over all items: how far the AUC moves if the page's weight doubles.

    The AUC is the mean, over clicked items, of the share of unclicked items that have a lower logit, and also the mean,
    over unclicked items, of the share of clicked items that have a higher one. So each item's deviation from the mean
    is known, and a page's effect is the sum over its items.

    Args:
        logits: [items], page-major.
        clicks: [items].
        page_lengths: [pages]; sums to `items`.

    Returns:
        [pages]; the sum is 0 up to rounding, and the sum of squares is the variance of the AUC over pages. NaN if the
        labels are all equal.
    """
    clicked = clicks.astype(bool)
    _, rank = np.unique(logits, return_inverse=True)
    counts = [np.bincount(rank, weights=label, minlength=rank.max(initial=-1) + 1) for label in (~clicked, clicked)]
    unclicked, clicks_at = counts[0].sum(), counts[1].sum()
    if not unclicked or not clicks_at:
        return np.full(len(page_lengths), np.nan)
    # share of the items with the other label that lie below, a tie counting half
    below = [(np.cumsum(of) - of / 2) / of.sum() for of in counts]
    wins = np.where(clicked, below[0][rank], 1 - below[1][rank])  # mean over either label: the AUC
    auc = wins[clicked].mean()
    return _sums((wins - auc) / np.where(clicked, clicks_at, unclicked), page_lengths)


def page_auc_effects(logits: Floats, clicks: npt.NDArray[np.bool_], page_lengths: npt.NDArray[np.int64]) -> Floats:
    """Effect of each page on the page-grouped AUC, see `metrics.PageAUC`.

    Args:
        logits: [items], page-major.
        clicks: [items].
        page_lengths: [pages]; sums to `items`.

    Returns:
        [pages], as in `auc_effects`; 0 for a page without both labels. NaN if no page has both.
    """
    clicked = clicks.astype(bool)
    page = np.repeat(np.arange(len(page_lengths)), page_lengths)
    order = np.lexsort((logits, page))
    starts = np.cumsum(page_lengths) - page_lengths
    # ties share the mean of their places
    new = np.ones(len(order), dtype=bool)
    new[1:] = (np.diff(logits[order]) != 0) | (np.diff(page[order]) != 0)
    run = np.cumsum(new) - 1
    firsts = np.flatnonzero(new)
    lengths = np.diff(np.append(firsts, len(order)))
    place = np.empty(len(order))
    place[order] = (firsts + (lengths + 1) / 2)[run]
    rank = place - starts[page]
    clicks_of = _sums(clicked.astype(float), page_lengths)
    pairs = clicks_of * (page_lengths - clicks_of)
    wins = _sums(rank * clicked, page_lengths) - clicks_of * (clicks_of + 1) / 2
    weight = page_lengths * (pairs > 0)
    if not weight.any():
        return np.full(len(page_lengths), np.nan)
    auc = wins / np.maximum(pairs, 1)
    share = weight / weight.sum()
    return share * (auc - (share * auc).sum())


def user_effects(effects: Floats, users: npt.NDArray[np.int64]) -> Floats:
    """Effect of each user: the sum over the user's pages.

    Args:
        effects: [pages], effect of each page.
        users: [pages], row of the page's user; 0 is unknown, and each such page is a user of its own.

    Returns:
        [users].

    >>> user_effects(np.array([1.0, 2.0, 4.0, 8.0, 16.0]), np.array([7, 0, 7, 3, 0]))
    array([ 8.,  5.,  2., 16.])
    """
    _, known = np.unique(users[users != 0], return_inverse=True)
    of_known = np.bincount(known, weights=effects[users != 0])
    return np.concatenate([of_known, effects[users == 0]])


def _sums(values: Floats, page_lengths: npt.NDArray[np.int64]) -> Floats:
    """Sum over each page's items; 0 for a page without items."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.cumsum(page_lengths)
    return total[ends] - total[ends - page_lengths]
