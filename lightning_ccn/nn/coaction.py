"""CRRN's interaction of target and trigger, gated by what the two have in common."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad

from lightning_ccn.nn.gather import gather


class CoActionGate(nn.Module):
    """sigmoid(MLP(co-action features)) * (E_target * E_trigger).

    Args:
        features: Number of co-action features; without any, the gate is a constant that is learned.
        dim: Width of an item's embedding.
        gain: Factor on the product. Embeddings start within +-0.05 and their product near 0.001; without a gain, the
            interaction would barely move.
    """

    def __init__(self, features: int, dim: int, gain: float = 20.0) -> None:
        super().__init__()
        self.features, self.gain = features, gain
        # at least one, which is always 0: a layer without inputs has no weights
        self.gate = nn.Sequential(nn.Linear(max(features, 1), dim // 2), nn.ReLU(), nn.Linear(dim // 2, dim))

    def forward(self, common: Tensor, target: Tensor, trigger: Tensor, page: Tensor) -> Tensor:
        """The interaction of each target with its page's trigger.

        Args:
            common: float [items, features].
            target: float [items, dim].
            trigger: float [pages, dim].
            page: int64 [items], the page of each item.

        Returns:
            float [items, dim].
        """
        gate: Tensor = self.gate(common if self.features else pad(common, (0, 1))).sigmoid()
        return gate * (self.gain * target * gather(page, trigger))
