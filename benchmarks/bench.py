"""Measures how fast training is, beside other libraries and the limits of this machine; `make bench` runs it.

python -m benchmarks.bench --peers .venv-bench
python -m benchmarks.bench --peers .venv-bench --wall true
python -m benchmarks.bench --quick true

All contestants of a section are started, each in a process of its own, and then take turns, round after round: what
else the machine does falls on all alike. A turn is a training on a number of steps. The results are the turns as they
were measured, as JSON, of which `benchmarks.report` makes the page.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli

from benchmarks.about import about, available_bytes
from benchmarks.contest import ROOT, Contestant
from benchmarks.entrants import INSTANCE_MAJOR, PEERS, SYSTEMS, Peers, Stage, batch_pages, each_item_a_page
from benchmarks.pages import Shape
from lightning_ccn.data.world import WorldConfig, generate

SCALED = "ccn"  # the system whose scaling is measured
ROWS_80M = {"users": 60_000_000, "catalogue": 20_000_000}
BYTES_80M = 10 * 2**30  # of memory, for tables of 80 million rows in fp16 and what it takes to make them

Turn = tuple[str, dict[str, Any]]  # what to ask, with its arguments


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: Rounds of the main contest.
        steps: Steps of a turn of our systems; the peers, which are slower, take `peer_steps`.
        peer_steps: See `steps`.
        scaling_rounds, scaling_steps: The same for each series of the scaling.
        world_pages: Pages of the synthetic world that the reader reads.
        large: Whether tables beyond a million rows are measured.
    """

    rounds: int = 5
    steps: int = 20
    peer_steps: int = 4
    scaling_rounds: int = 3
    scaling_steps: int = 8
    world_pages: int = 6_144
    large: bool = True


QUICK = Effort(rounds=1, steps=4, peer_steps=1, scaling_rounds=1, scaling_steps=2, world_pages=512, large=False)


class Bench:
    """A measurement.

    Args:
        stage: Where contestants run.
        effort: How much is measured.
    """

    def __init__(self, stage: Stage, effort: Effort) -> None:
        self._stage, self._effort = stage, effort

    def contest(self, shape: Shape) -> dict[str, Any]:
        """The systems, the peers and the machine's limits, side by side."""
        stage, effort = self._stage, self._effort
        folder = stage.pages("pages", shape, effort.steps)
        alone = stage.pages("instances", shape, effort.steps, instance_major=True)
        every = {"steps": effort.steps}
        ours: dict[str, Turn] = {"epoch": ("epoch", {}), "kept": ("kept", every), "bare": ("bare", every)}
        entrants = {f"ours_{name}": (stage.ours(f"ours_{name}", name, folder, shape), ours) for name in SYSTEMS}
        for name in INSTANCE_MAJOR:
            contestant = stage.ours(f"instances_{name}", name, alone, each_item_a_page(shape))
            entrants[f"instances_{name}"] = contestant, {name: ours[name] for name in ("epoch", "bare")}
        if stage.peers is not None:
            file = stage.feed("feed", shape)
            steps = {"epoch": ("epoch", {"steps": effort.peer_steps})}
            entrants |= {name: (stage.peer(name, file), steps) for name in PEERS}
        entrants["limits"] = stage.limits(), {"limits": ("limits", {})}
        found = rounds(entrants, effort.rounds, last={"ours": (("parts", {"steps": effort.steps}), ("work", {}))})
        return {"machine": found.pop("limits"), "contest": found}

    def reading(self) -> dict[str, Any]:
        """The reader, on the default world and on long histories."""
        stage, pages = self._stage, self._effort.world_pages
        world = generate(
            WorldConfig(train_pages=pages, validation_pages=10, test_pages=10), stage.scratch / "data" / "world"
        )
        shape = Shape(pages=0, short=20, long=1_000, users=14_000, catalogue=5_000, categories=40, sellers=400)
        steps = -(-pages // 4 // batch_pages(shape))
        histories = stage.pages("histories", shape, steps)
        turn: dict[str, Turn] = {"epoch": ("epoch", {})}
        entrants = {
            "world": (stage.reader("world", world, 128, 20, 20), turn),
            "histories": (stage.reader("histories", histories, 128, 20, 20), turn),
        }
        return rounds(entrants, self._effort.rounds)

    def scaling(self, shape: Shape) -> dict[str, Any]:
        """Series of larger tables, longer pages, longer sequences, more ranks."""
        large = self._effort.large
        catalogues = (100_000, 1_000_000, *([10_000_000] if large else []))
        rows = {f"{number}": replace(shape, catalogue=number) for number in catalogues}
        whole = {f"{number}": replace(shape, items=number) for number in (5, 10, 20, 50, 100)}
        lengths = (50, 200, 500, 1_000, 2_000) if large else (50, 200, 500)
        sequences = {f"{number}": replace(shape, long=number, catalogue=1_000_000) for number in lengths}
        series = {
            "rows": self._series("rows", rows),
            "items": self._series("items", whole),
            "sequences": self._series("sequences", sequences),
            "ranks": self._series("ranks", {"1": shape, "2": shape}, ranks={"2": 2}),
        }
        if large and available_bytes() > BYTES_80M:
            most = {"80000000": replace(shape, **ROWS_80M)}
            series["rows"] |= self._series("most", most, ("--model.system.init_args.table_dtype", "fp16"))
        if self._stage.peers is not None:
            series["din_rows"] = self._against(rows)
        return series

    def _series(
        self,
        name: str,
        shapes: Mapping[str, Shape],
        options: tuple[str, ...] = (),
        ranks: Mapping[str, int] | None = None,
    ) -> dict[str, Any]:
        stage, effort = self._stage, self._effort
        entrants, count = {}, ranks or {}
        for value, shape in shapes.items():
            here = count.get(value, 1)
            folder = stage.pages(f"{name}-{value}", shape, effort.scaling_steps, ranks=here)
            contestant = stage.ours(f"{name}-{value}", SCALED, folder, shape, here, *options)
            turns: dict[str, Turn] = {"epoch": ("epoch", {})}
            if not count:  # a bare loop averages no gradients over ranks
                turns["bare"] = ("bare", {"steps": effort.scaling_steps})
            entrants[value] = contestant, turns
        return rounds(entrants, effort.scaling_rounds, last={"": (("work", {}),)} if not count else {})

    def _against(self, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        """DIN on larger tables: ours, and FuxiCTR's."""
        stage, effort = self._stage, self._effort
        steps = {"steps": min(effort.peer_steps, 2)}
        entrants: dict[str, tuple[Contestant, Mapping[str, Turn]]] = {}
        for value, shape in shapes.items():
            folder = stage.pages(f"din-{value}", shape, effort.scaling_steps)
            peer = stage.peer("fuxictr_din", stage.feed(f"feed-{value}", shape), f"-{value}")
            entrants[f"peer {value}"] = peer, {"epoch": ("epoch", steps)}
            entrants[f"ours {value}"] = stage.ours(f"din-{value}", "din", folder, shape), {"epoch": ("epoch", {})}
        return rounds(entrants, effort.scaling_rounds)


def rounds(
    entrants: Mapping[str, tuple[Contestant, Mapping[str, Turn]]],
    count: int,
    last: Mapping[str, tuple[Turn, ...]] | None = None,
) -> dict[str, Any]:
    """Gives each contestant its turns, round after round.

    Args:
        entrants: By name: the contestant, and its turns of a round by name.
        count: Number of rounds.
        last: What contestants are asked after the last round, by the beginning of their names.

    Returns:
        By contestant: what it said of itself and was asked last, and under `turns` its answers by name, in order.
    """
    with ExitStack() as stack:
        for contestant, _ in entrants.values():
            stack.callback(contestant.stop)
        facts = started([contestant for contestant, _ in entrants.values()])
        found: dict[str, Any] = dict(zip(entrants, facts, strict=True))
        for name, (_, turns) in entrants.items():
            found[name]["turns"] = {turn: [] for turn in turns}
        print(f"  {', '.join(entrants)}: {count} rounds", flush=True)
        for _ in range(count):
            for name, (contestant, turns) in entrants.items():
                for turn, (word, arguments) in turns.items():
                    answer = contestant.ask(word, **arguments)
                    found[name]["peak_mib"] = answer.pop("peak_mib")
                    found[name]["turns"][turn].append(answer)
        for name, (contestant, _) in entrants.items():
            for word, arguments in (
                turn for start, asked in (last or {}).items() if name.startswith(start) for turn in asked
            ):
                found[name][word] = contestant.ask(word, **arguments)[word]
    return found


def started(contestants: Sequence[Contestant]) -> list[dict[str, Any]]:
    """Starts contestants, as many at a time as there are cores, and returns what each says of itself."""
    facts: list[dict[str, Any]] = []
    cores = os.cpu_count() or 1
    for first in range(0, len(contestants), cores):
        together = contestants[first : first + cores]
        for contestant in together:
            contestant.start()
        facts += [contestant.wait() for contestant in together]
    return facts


def main(peers: Path | None = None, wall: bool = False, quick: bool = False, output: Path | None = None) -> None:
    """Measure how fast training is.

    Args:
        peers: The environment that has the other libraries, made by `make bench`; without it, they are left out.
        wall: Two threads by wall clock, which needs an idle machine, and not one thread by CPU time.
        quick: Little of everything, to try the benchmark out: its numbers mean nothing.
        output: File to write; default: in benchmarks/results, or in runs for a quick one.
    """
    name = "two_threads" if wall else "one_thread"
    path = output or (
        ROOT / "runs" / f"bench-{name}.json" if quick else ROOT / "benchmarks" / "results" / f"{name}.json"
    )
    with tempfile.TemporaryDirectory() as scratch:
        environment = Peers(peers / "bin" / "python", peers / "fuxictr" / "model_zoo") if peers else None
        stage = Stage(Path(scratch), "wall" if wall else "cpu", 2 if wall else 1, environment)
        effort = QUICK if quick else Effort()
        bench, shape = Bench(stage, effort), Shape(pages=0)
        result = {"about": about(stage, effort, shape)}
        print("contest", flush=True)
        result |= bench.contest(shape)
        print("reader", flush=True)
        result["reader"] = bench.reading()
        print("scaling", flush=True)
        result["scaling"] = bench.scaling(shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    auto_cli(main)
