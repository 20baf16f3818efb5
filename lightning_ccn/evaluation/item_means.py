"""Means over the items of a training run, exact over ranks and after a resume."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

OverRanks = Callable[[Tensor], Tensor]  # gives the sum of a tensor over all ranks


class ItemMeans:
    """Item-weighted means since the start of the epoch, and since the last call of `window`.

    Ranks communicate only when a mean is computed.
    """

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}  # name -> float64 [2]: sum, weight
        self.logged: dict[str, Tensor] = {}  # the totals at the last call of `window`

    def add(self, means: Mapping[str, Tensor], items: int) -> None:
        """Adds a batch's means over its items."""
        for name, value in means.items():
            weight = torch.tensor(float(items), dtype=torch.float64, device=value.device)
            self._add(name, value.detach().double() * weight, weight)

    def add_degrees(self, degree: Tensor, clicks: Tensor) -> None:
        """Adds a batch's collaborative degrees, for clicked and unclicked items separately.

        A collaborative degree says how well an item fits the user and the trigger (Eq. 4 of the CCN paper).

        Args:
            degree: Float [items].
            clicks: Float [items], 0 or 1.
        """
        degree, clicks = degree.detach().double(), clicks.double()
        self._add("degree_clicked", (degree * clicks).sum(), clicks.sum())
        self._add("degree_unclicked", (degree * (1 - clicks)).sum(), (1 - clicks).sum())

    def window(self, over_ranks: OverRanks) -> dict[str, float]:
        """Means since the last call; names without items are left out."""
        since = {name: total - self.logged.get(name, 0.0) for name, total in self.totals.items()}
        self.logged = {name: total.clone() for name, total in self.totals.items()}
        return _means(since, over_ranks)

    def epoch(self, over_ranks: OverRanks) -> dict[str, float]:
        """Means since the last `reset`; names without items are left out."""
        return _means(self.totals, over_ranks)

    def reset(self) -> None:
        """Starts the next epoch."""
        self.totals.clear()
        self.logged.clear()

    def state(self, over_ranks: OverRanks) -> dict[str, dict[str, list[float]]]:
        """Sums over all ranks, for a checkpoint. Every rank must call it."""
        return {
            "totals": {name: over_ranks(value.clone()).tolist() for name, value in self.totals.items()},
            "logged": {name: over_ranks(value.clone()).tolist() for name, value in self.logged.items()},
        }

    def load(self, state: Mapping[str, Mapping[str, list[float]]], share: float = 1.0) -> None:
        """Restores the result of `state`.

        Args:
            state: Sums over all ranks.
            share: 1 on one rank and 0 on the others, so that the sum over ranks is right and every rank has all names.
        """
        self.totals = {k: torch.tensor(v, dtype=torch.float64) * share for k, v in state["totals"].items()}
        self.logged = {k: torch.tensor(v, dtype=torch.float64) * share for k, v in state["logged"].items()}

    def _add(self, name: str, total: Tensor, weight: Tensor) -> None:
        pair = torch.stack([total, weight])
        before = self.totals.get(name)
        self.totals[name] = pair if before is None else before.to(pair.device) + pair


def _means(sums: Mapping[str, Tensor], over_ranks: OverRanks) -> dict[str, float]:
    pairs = {name: over_ranks(pair.clone()).tolist() for name, pair in sums.items()}
    return {name: total / weight for name, (total, weight) in pairs.items() if weight > 0}
