"""Advice on the size of attention heads."""

from __future__ import annotations

import re

import pytest
from torch import nn

from lightning_ccn.nn.attention import TargetAttention
from lightning_ccn.nn.head_size import slow_heads


@pytest.mark.parametrize(
    ("width", "heads", "advice"),
    [
        (48, 4, "48 values into 4 heads of 12, and .*: choose heads 3 or 6"),
        (24, 2, "choose heads 1 or 3"),
        (12, 4, "make dim a multiple of 8"),
    ],
)
def test_heads_of_a_slow_size_are_named_with_better_ones(width: int, heads: int, advice: str) -> None:
    words = slow_heads(nn.Sequential(nn.Linear(2, 2), TargetAttention(width, heads)))
    assert words is not None and re.search(advice, words)


@pytest.mark.parametrize(("width", "heads"), [(64, 4), (48, 6), (48, 3)])
def test_heads_of_a_fast_size_need_no_advice(width: int, heads: int) -> None:
    assert slow_heads(TargetAttention(width, heads)) is None
    assert slow_heads(nn.Linear(2, 2)) is None
