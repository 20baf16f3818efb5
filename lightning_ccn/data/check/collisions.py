"""How many original ids share a row of a hash table."""

from __future__ import annotations

import math

import numpy as np

from lightning_ccn.data.splitmix64 import hash_rows


def collisions(ids: np.ndarray, rows: int) -> str:
    """A phrase that counts them, given the ids, int64 [n]."""
    _, count = np.unique(hash_rows(ids, rows), return_counts=True)
    shared = len(ids) - int((count == 1).sum())
    return f"{shared:,} of {len(ids):,} ids ({shared / max(len(ids), 1):.1%}) share a row with another"


def estimated_collisions(used: np.ndarray) -> str:
    """A phrase that estimates them from the rows in use, bool [rows]: n ids in r rows leave (1 - 1/r)^n empty."""
    rows, full = len(used) - 1, np.count_nonzero(used[1:])
    if full == rows:
        return f"all {rows:,} rows are in use, so collisions cannot be estimated; give the table more rows"
    ids = math.log1p(-full / rows) / math.log1p(-1 / rows)
    share = -math.expm1((ids - 1) * math.log1p(-1 / rows)) if full else 0.0
    return f"{full:,} of {rows:,} rows in use, by about {ids:,.0f} ids; about {share:.1%} share a row with another"
