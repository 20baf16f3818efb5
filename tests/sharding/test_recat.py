"""The order of all ranks' ids is TorchRec's."""

from __future__ import annotations

import pytest
import torch

from lightning_ccn.sharding.recat import recat
from lightning_ccn.sharding.torchrec_private import torchrec_recat


@pytest.mark.parametrize("sizes", [None, [3, 3, 3, 3], [3, 0, 5, 1]], ids=str)
@pytest.mark.parametrize("stagger", [1, 2])
@pytest.mark.parametrize("features", [1, 3])
def test_the_order_is_torchrecs(features: int, stagger: int, sizes: list[int] | None) -> None:
    device = torch.device("cpu")
    expected = torchrec_recat(features, 4, stagger, device, sizes)
    for _ in range(2):  # the second one may be kept
        found = recat(features, 4, stagger, device, sizes)
        assert found is not None
        assert torch.equal(found, expected)
        assert found.dtype == expected.dtype


def test_a_rank_without_features_has_no_order() -> None:
    assert recat(0, 4) is None
    assert torchrec_recat(0, 4) is None
