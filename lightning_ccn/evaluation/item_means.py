"""Means over the items of a training run, exact over ranks and after a resume."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

OverRanks = Callable[[Tensor], Tensor]  # gives the sum of a tensor over all ranks
Names = tuple[str, ...]  # of means that are added together
Sums = dict[str, list[float]]  # name -> sum over items, and their weight

DEGREES: Names = ("degree_clicked", "degree_unclicked")


def degree_sums(degree: Tensor, clicks: Tensor) -> Tensor:
    """Sums of a batch's collaborative degrees over clicked and unclicked items (`DEGREES`), and the numbers of items.

    A collaborative degree says how well an item fits the user and the trigger (Eq. 4 of the CCN paper).

    Args:
        degree: Float [items].
        clicks: Float [items], 0 or 1.

    Returns:
        float64 [2, 2], for `ItemMeans.add_sums`.
    """
    label = torch.stack([clicks, 1 - clicks])  # [2, items]
    return torch.stack([label * degree.detach(), label]).sum(2, dtype=torch.float64)


class ItemMeans:
    """Item-weighted means since the start of the epoch, and since the last call of `window`.

    Sums stay on the device where the values are. Ranks communicate, and the host waits for the device, only when a mean
    is asked for.
    """

    def __init__(self) -> None:
        self._totals: dict[Names, Tensor] = {}  # float64 [2, names]: sums, weights; of this rank
        self._logged: dict[Names, Tensor] = {}  # the totals at the last call of `window`
        self._loaded: tuple[Sums, Sums, float] = {}, {}, 0.0  # totals and logged over all ranks, and this rank's share

    def add(self, names: Names, means: Tensor, items: int) -> None:
        """Adds a batch's means over its items, float [names]."""
        self.add_sums(names, torch.stack([means, torch.ones_like(means)]).double() * items)

    def add_sums(self, names: Names, sums: Tensor) -> None:
        """Adds a batch's sums and their weights, float64 [2, names]."""
        if names not in self._totals:
            totals, logged, share = self._loaded
            if any(name in totals for name in names):  # the first batch after a resume
                self._totals[names] = _restored(names, totals, share, sums.device)
                self._logged[names] = _restored(names, logged, share, sums.device)
        before = self._totals.get(names)
        self._totals[names] = sums if before is None else before + sums

    def window(self, over_ranks: OverRanks) -> dict[str, float]:
        """Means since the last call; names without items are left out."""
        since = {names: total - self._logged.get(names, 0.0) for names, total in self._totals.items()}
        self._logged = {names: total.clone() for names, total in self._totals.items()}
        return _means(_over_ranks(since, over_ranks))

    def epoch(self, over_ranks: OverRanks) -> dict[str, float]:
        """Means since the last `reset`; names without items are left out."""
        return _means(self.state(over_ranks)["totals"])

    def reset(self) -> None:
        """Starts the next epoch."""
        self._totals.clear()
        self._logged.clear()
        self._loaded = {}, {}, 0.0

    def state(self, over_ranks: OverRanks) -> dict[str, Sums]:
        """Sums over all ranks, for a checkpoint. Every rank must call it."""
        totals, logged, _ = self._loaded  # those that no batch has been added to since
        return {
            "totals": totals | _over_ranks(self._totals, over_ranks),
            "logged": logged | _over_ranks(self._logged, over_ranks),
        }

    def load(self, state: Mapping[str, Mapping[str, list[float]]], share: float = 1.0) -> None:
        """Restores the result of `state`.

        Args:
            state: Sums over all ranks.
            share: 1 on the rank that continues these sums, 0 on the others, so that the sum over ranks is right.
        """
        self.reset()
        self._loaded = dict(state["totals"]), dict(state["logged"]), share


def _restored(names: Names, saved: Sums, share: float, device: torch.device) -> Tensor:
    """float64 [2, names]."""
    pairs = [saved.get(name, [0.0, 0.0]) for name in names]
    return torch.tensor(pairs, dtype=torch.float64).T.mul(share).to(device)


def _over_ranks(tables: Mapping[Names, Tensor], over_ranks: OverRanks) -> Sums:
    """Sums over all ranks by name, in one exchange."""
    if not tables:
        return {}
    sums, weights = over_ranks(torch.cat([*tables.values()], dim=1)).tolist()
    names = [name for group in tables for name in group]
    return {name: [total, weight] for name, total, weight in zip(names, sums, weights, strict=True)}


def _means(sums: Sums) -> dict[str, float]:
    return {name: total / weight for name, (total, weight) in sums.items() if weight > 0}
