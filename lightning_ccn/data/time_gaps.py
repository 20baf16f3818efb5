"""How long before a page a behaviour was, in buckets that are fine for minutes and coarse for weeks."""

from __future__ import annotations

import numpy as np

BUCKETS = 68
PER_DOUBLING = 4
MINUTE = 60  # seconds


def gap_buckets(page_time: np.ndarray, behaviour_time: np.ndarray) -> np.ndarray:
    """The bucket of each behaviour's time before its page.

    With a gap of m minutes it is floor(4 log2(1 + m)), and at most the last bucket, which begins after 76 days. A
    behaviour after its page counts as one at the same time.

    Args:
        page_time: Integers [behaviours], seconds.
        behaviour_time: Integers [behaviours], seconds.

    Returns:
        int8 [behaviours], from 0 to `BUCKETS` - 1.

    >>> gap_buckets(np.full(5, 10**9), 10**9 - np.array([-5, 0, 60, 24 * 3600, 10**9])).tolist()
    [0, 0, 4, 41, 67]
    """
    gap = page_time.astype(np.float64) - behaviour_time  # integers of 64 bits could overflow
    bucket = np.floor(PER_DOUBLING * np.log2(1 + gap.clip(min=0) / MINUTE))
    return bucket.clip(max=BUCKETS - 1).astype(np.int8)
