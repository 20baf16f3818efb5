"""What Lightning, the strategy, metrics and logging add to a bare step, by the size of a batch; prints a table.

python -m benchmarks.framework

`ccn fit` on batches that stay in memory takes turns with a loop of a few lines over the same model, batches and
optimizers, see `benchmarks.ours`. One thread, CPU time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles

from jsonargparse import auto_cli

from benchmarks.bench import Turn, rounds
from benchmarks.entrants import Stage, batch_pages
from benchmarks.numbers import of_turns
from benchmarks.ours import KEPT
from benchmarks.pages import Shape
from benchmarks.tables import NAMES, table

SYSTEMS = ("sim", "ccn")
STEPS = {1: 48, 4: 12, 16: 4}  # a batch of so many times the contest's items -> steps of a turn


def measure(stage: Stage, times: int, count: int) -> list[list[str]]:
    """Rows of the table, one a system, for batches of so many times the contest's items."""
    shape = Shape(pages=0)
    folder = stage.pages(f"pages-{times}", shape, KEPT * times)
    size = ("--data.batch_pages", str(times * batch_pages(shape)))
    turns: dict[str, Turn] = {turn: (turn, {"steps": STEPS[times]}) for turn in ("kept", "bare")}
    entrants = {name: (stage.ours(f"{name}-{times}", name, folder, shape, 1, *size), turns) for name in SYSTEMS}
    rows = []
    for name, found in rounds(entrants, count).items():
        kept, bare = (
            of_turns(found, turn, lambda answer: 1_000 * answer["seconds"] / answer["steps"]) for turn in turns
        )
        added = [a - b for a, b in zip(kept.values, bare.values, strict=True)]
        shares = [100 * a / b for a, b in zip(added, bare.values, strict=True)]
        items = f"{found['items_of_batch']:,}"
        rows.append([NAMES[name], items, f"{bare.median:.1f}", middle(added), middle(shares)])
    return rows


def middle(values: Sequence[float]) -> str:
    """The median, and the quartiles: single turns are noisy, and what is looked for is a few percent."""
    low, median, high = quantiles(values, n=4, method="inclusive")
    return f"{median:.1f} ({low:.1f} to {high:.1f})"


def main(count: int = 15) -> None:
    """Print the table.

    Args:
        count: Rounds.
    """
    rows = [["", "items a batch", "bare loop, ms a step", "added, ms", "added, % of the bare loop"]]
    with tempfile.TemporaryDirectory() as scratch:
        stage = Stage(Path(scratch), "cpu", 1, None)
        found = [row for times in STEPS for row in measure(stage, times, count)]
    print(table([*rows, *sorted(found, key=lambda row: SYSTEMS.index(row[0].lower()))]))


if __name__ == "__main__":
    auto_cli(main)
