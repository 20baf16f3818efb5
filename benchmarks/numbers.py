"""What the turns of a measurement say: speeds, shares and costs, each as a median with its spread."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

DENSE = ("attention", "collaborative module", "head", "rest of the forward pass", "losses", "backward")
AROUND = "Lightning, strategy, metrics, logging"
SYSTEMS = ("din", "sim", "tan", "ccn")
PEERS_OF = {
    "din": ("fuxictr_din", "fuxictr_din_dice", "rechub_din", "rechub_din_dice", "deepctr_din", "deepctr_din_dice"),
    "sim": ("fuxictr_sim",),
}
Answer = dict[str, Any]


@dataclass(frozen=True)
class Spread:
    """A quantity in all rounds.

    Attributes:
        values: One value a round.
    """

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return median(self.values)

    @property
    def low(self) -> float:
        """The least value."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The greatest value."""
        return max(self.values)

    def over(self, others: Spread) -> Spread:
        """The ratio to another quantity, round by round."""
        return Spread(tuple(a / b for a, b in zip(self.values, others.values, strict=True)))


class Numbers:
    """The numbers of one measurement.

    Args:
        result: What `benchmarks.bench` wrote.
    """

    def __init__(self, result: dict[str, Any]) -> None:
        self.about: dict[str, Any] = result["about"]
        self.entrants: dict[str, Any] = result["contest"]
        self.reader: dict[str, Any] = result["reader"]
        self.scaling: dict[str, Any] = result["scaling"]
        self._machine = result["machine"]["turns"]["limits"]

    @staticmethod
    def read(path: Path) -> Numbers:
        """The numbers of a file."""
        return Numbers(json.loads(path.read_text()))

    def speed(self, name: str, turn: str = "epoch") -> Spread:
        """Items a second of a contestant."""
        return of_turns(self.entrants[name], turn, lambda answer: answer["items"] / answer["seconds"])

    def step(self, name: str, turn: str = "epoch") -> Spread:
        """Seconds a step of a contestant."""
        return of_turns(self.entrants[name], turn, lambda answer: answer["seconds"] / answer["steps"])

    def memory(self, name: str) -> float:
        """The most memory that a contestant has held, in MiB, without the batches that the benchmark keeps for it."""
        return float(self.entrants[name]["peak_mib"] - self.entrants[name]["feed_mib"])

    def peers(self, system: str) -> list[str]:
        """The peers that have a system; empty if the measurement was made without them."""
        return [name for name in PEERS_OF.get(system, ()) if name in self.entrants]

    def fastest_peer(self, system: str) -> str | None:
        """The peer with the highest median speed."""
        return max(self.peers(system), key=lambda name: self.speed(name).median, default=None)

    def framework_cost(self, system: str) -> Spread:
        """What Lightning, strategy, metrics and logging add to a bare loop, as a share of the bare loop."""
        ratio = self.step(f"ours_{system}", "kept").over(self.step(f"ours_{system}", "bare"))
        return Spread(tuple(value - 1 for value in ratio.values))

    def contrast_cost(self) -> Spread:
        """What a step of CCN takes more than one of TAN, as a share of TAN's."""
        ratio = self.step("ours_ccn", "bare").over(self.step("ours_tan", "bare"))
        return Spread(tuple(value - 1 for value in ratio.values))

    def parts(self, system: str) -> dict[str, float]:
        """Seconds of a step end to end, by part."""
        entrant = self.entrants[f"ours_{system}"]
        reading = of_turns(entrant, "epoch", lambda answer: answer["reading"] / answer["steps"]).median
        around = self.step(f"ours_{system}", "kept").median - self.step(f"ours_{system}", "bare").median
        return {"reader": reading, **entrant["parts"], AROUND: around}

    def work(self, system: str) -> dict[str, float]:
        """`flops`, `bytes` and `table_bytes` of a step, see `breakdown.dense_work`."""
        found: dict[str, float] = self.entrants[f"ours_{system}"]["work"]
        return found

    def products(self) -> dict[str, Spread]:
        """Floating-point operations a second of each matrix product that was measured."""
        names = self._machine[0]["flops"]
        return {name: Spread(tuple(answer["flops"][name] for answer in self._machine)) for name in names}

    @property
    def bandwidth(self) -> Spread:
        """Bytes a second that a copy reads and writes."""
        return Spread(tuple(answer["bytes"] for answer in self._machine))

    @property
    def peak(self) -> float:
        """Floating-point operations a second of the fastest matrix product."""
        return max(product.median for product in self.products().values())

    def limit(self, system: str) -> float:
        """Items a second of a step that does its floating-point operations at the peak, and nothing else."""
        items = self.entrants[f"ours_{system}"]["items_of_batch"]
        return float(items * self.peak / self.work(system)["flops"])

    def dense_seconds(self, system: str) -> float:
        """Seconds of a step's dense part: forward and backward pass without the tables, and the losses."""
        parts = self.entrants[f"ours_{system}"]["parts"]
        return float(sum(parts.get(name, 0.0) for name in DENSE))

    def dense_share(self, system: str) -> float:
        """The share of the matmul peak that the dense part reaches."""
        return self.work(system)["flops"] / self.dense_seconds(system) / self.peak


def of_turns(entrant: dict[str, Any], turn: str, value: Callable[[Answer], float]) -> Spread:
    """A quantity of each turn of a contestant."""
    return Spread(tuple(value(answer) for answer in entrant["turns"][turn]))


def least(names: Iterable[str], value: Callable[[str], float]) -> float | None:
    """The least value of some contestants; None if there are none."""
    return min(map(value, names), default=None)
