"""Contrast and a pairwise loss over TAN in several worlds.

`python -m docs.figures.worlds runs/*/compare.json` prints the table of docs/results.md from comparisons whose baseline
is the bounded TAN, one for each world. `python -m docs.figures.worlds` draws docs/figures/worlds.svg from that table;
`tests/docs/test_figures.py` keeps the drawing current.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from docs.figures.auc import FAINT, RESULTS, RULE, STYLE
from lightning_ccn.data.world.knobs import WorldConfig

SVG = Path(__file__).with_name("worlds.svg")
HEAD = "| world | seeds | attainable | TAN, bounded degree |"
PANELS = {  # knob of a world -> what it means
    "page_clickiness": "clickiness of pages",
    "click_rate": "click rate",
    "train_pages": "training pages",
    "intent_spread": "spread of intents",
}
SYSTEMS = {"CCN": "#c2460f", "TAN + pairwise": "#1f68b3", "CCN + pairwise, as chosen": "#3c7d3c"}  # title -> colour
DEFAULT = "the default"


@dataclass(frozen=True)
class World:
    """A row of the table.

    Attributes:
        knob: The knob that is not the default's; "" for the default world.
        value: Its value.
        differences: By system, AUC minus the bounded TAN's with the ends of its 95% interval, in points.
    """

    knob: str
    value: float
    differences: Mapping[str, tuple[float, float, float]]


def rows(reports: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The table, as Markdown."""
    heads = [f"{title} - TAN, points | 95% interval" for title in SYSTEMS]
    columns = [*HEAD.strip("| ").split(" | "), *" | ".join(heads).split(" | ")]
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    for report in reports:
        by_title = {system["title"]: system for system in report["systems"]}
        found = [by_title[title]["versus"]["auc"] for title in SYSTEMS]
        cells = [
            _name(report["dataset"]["folder"]),
            str(len(report["protocol"]["seeds"])),
            _decimal(report["bounds"]["attainable_auc"]),
            _decimal(by_title["TAN, bounded degree"]["summary"]["auc"]["mean"]),
        ]
        for each in found:
            ends = f"[{100 * each['low']:+.2f}, {100 * each['high']:+.2f}]"
            cells += [f"{100 * each['difference']:+.2f}", ends]
        yield "| " + " | ".join(cells) + " |"


def _name(folder: str) -> str:
    default = asdict(WorldConfig())
    own = {key: value for key, value in asdict(WorldConfig.load(folder)).items() if value != default[key]}
    return " ".join(f"`--{key} {value}`" for key, value in own.items()) or DEFAULT


def read_worlds(markdown: str) -> list[World]:
    """Reads the table.

    Raises:
        ValueError: The text has no such table.
    """
    lines = markdown.splitlines()
    start = next((at for at, line in enumerate(lines) if line.startswith(HEAD)), None)
    if start is None:
        raise ValueError(f"no table that starts with {HEAD}")
    worlds = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        name, _, _, _, *numbers = (cell.strip() for cell in line.strip()[1:-1].split("|"))
        found = [float(number) for cell in numbers for number in re.findall(r"[+-][\d.]+", cell)]
        triples = [(found[at], found[at + 1], found[at + 2]) for at in range(0, len(found), 3)]
        knob = re.match(r"`--(\w+) ([\d.]+)`", name)
        worlds.append(
            World(knob[1] if knob else "", float(knob[2]) if knob else 0.0, dict(zip(SYSTEMS, triples, strict=True)))
        )
    return worlds


def draw(worlds: Sequence[World], path: Path = SVG) -> None:
    """Writes the drawing as SVG: a panel for each knob, with the default world in all of them."""
    default = next(world for world in worlds if not world.knob)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.33, 3.0), facecolor="white")
        title = "What is added to TAN, in points of test AUC"
        figure.text(0.022, 0.92, title, fontsize=13.5, fontweight="bold")
        for place, (name, colour) in enumerate(SYSTEMS.items()):
            left = 0.52 + (0.0, 0.07, 0.215)[place]
            figure.add_artist(
                Line2D([left], [0.937], marker="o", markersize=6, color=colour, transform=figure.transFigure)
            )
            figure.text(left + 0.014, 0.92, name, fontsize=9.5)
        for at, (knob, meaning) in enumerate(PANELS.items()):
            axes = figure.add_axes((0.07 + 0.235 * at, 0.2, 0.2, 0.6))
            axes.set_ylim(-1, 1.5)  # an interval may end beyond it
            points = [(getattr(WorldConfig(), knob), default)]
            points += [(world.value, world) for world in worlds if world.knob == knob]
            _panel(axes, sorted(points, key=lambda point: point[0]), meaning, numbered=at == 0)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None, "Title": title})


def _panel(axes: Axes, points: Sequence[tuple[float, World]], meaning: str, numbered: bool) -> None:
    axes.axhline(0, color=FAINT, linewidth=1)
    for shift, (name, colour) in zip((-0.2, 0.0, 0.2), SYSTEMS.items(), strict=True):
        for place, (_, world) in enumerate(points):
            middle, low, high = world.differences[name]
            error = [[middle - low], [high - middle]]
            axes.errorbar(place + shift, middle, yerr=error, fmt="o", color=colour, markersize=5.5, capsize=3)
    axes.set_xlim(-0.5, len(points) - 0.5)
    axes.set_xticks(range(len(points)), [f"{value:,g}" for value, _ in points])
    axes.set_xlabel(meaning, color=FAINT, labelpad=5)
    axes.tick_params(length=0, labelsize=9.5, labelcolor=FAINT, labelleft=numbered)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _decimal(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")


def main() -> None:
    """Prints the table of the named comparisons, or writes the drawing."""
    if len(sys.argv) > 1:
        print("\n".join(rows([json.loads(Path(file).read_text()) for file in sys.argv[1:]])))
        return
    draw(read_worlds(RESULTS.read_text()))
    print(SVG)


if __name__ == "__main__":
    main()
