"""Means of behaviour sequences of unequal lengths."""

from __future__ import annotations

import torch

from lightning_ccn.nn.sequence_mean import sequence_mean
from tests.segments import behaviours_of


def test_it_is_over_the_behaviours_and_not_over_the_padding() -> None:
    item = torch.randn(5, 3)
    found = sequence_mean(item, behaviours_of([[0, 3, 3], [], [4]]))
    torch.testing.assert_close(found, torch.stack([item[[0, 3, 3]].mean(0), torch.zeros(3), item[4]]))
