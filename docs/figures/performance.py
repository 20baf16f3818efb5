"""Draws docs/figures/performance.svg from a measurement: `python -m benchmarks.report` calls it.

Above: items a second of our systems and of other libraries. Below: where the time of our systems' steps goes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.numbers import AROUND, SYSTEMS, Numbers

SVG = Path(__file__).with_name("performance.svg")

OURS, ALONE, PEER = "#c2460f", "#d99b7c", "#6a6f77"  # page-major, each item a page, other libraries
PARTS = {  # parts that are drawn as one -> colour
    ("reader",): ("reader", "#14805e"),
    ("lookup", "table update"): ("tables", "#1f68b3"),
    ("attention", "collaborative module", "head", "rest of the forward pass", "losses"): ("forward pass", "#e0a458"),
    ("backward",): ("backward pass", "#c2460f"),
    ("dense update",): ("dense update", "#7d5ba6"),
    (AROUND,): ("Lightning, logging, metrics", "#6a6f77"),
}
INK, FAINT, RULE = "#1d1f23", "#5d636c", "#dfe2e7"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "lightning_ccn",  # without it, every drawing has other ids
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica Neue", "Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
}
WIDTH, ROW, GAP, ABOVE, BELOW = 8.33, 0.29, 1.25, 0.65, 0.95  # inches: the drawing, a row, between, above, below
LEFT, RIGHT = 0.29, 0.84  # fractions of the width: ends of the axes


def draw(numbers: Numbers, path: Path = SVG) -> None:
    """Writes the drawing.

    Args:
        numbers: The measurement.
        path: File to write.
    """
    names = contestants(numbers)
    upper, lower = ROW * len(names), 1.4 * ROW * len(SYSTEMS)
    height = ABOVE + upper + GAP + lower + BELOW
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), facecolor="white")
        head: dict[str, Any] = {"fontsize": 13.5, "fontweight": "bold"}
        figure.text(0.022, 1 - 0.33 / height, "Items trained on per CPU-second, one thread", **head)
        bottom = (BELOW + lower + GAP) / height
        _speeds(figure.add_axes((LEFT, bottom, RIGHT - LEFT, upper / height)), numbers, names)
        figure.text(0.022, (BELOW + lower + 0.35) / height, "Where the time of a step goes, milliseconds", **head)
        _parts(figure.add_axes((LEFT, BELOW / height, RIGHT - LEFT, lower / height)), numbers)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None, "Title": "Speed of training"})


def contestants(numbers: Numbers) -> list[str]:
    """The contestants, system by system, the slowest first."""
    found: list[str] = []
    for system in SYSTEMS:
        names = [f"instances_{system}", f"ours_{system}", *numbers.peers(system)]
        found += sorted(
            (name for name in names if name in numbers.entrants), key=lambda name: numbers.speed(name).median
        )
    return found


def _speeds(axes: Axes, numbers: Numbers, names: list[str]) -> None:
    beside = axes.get_yaxis_transform()
    for row, name in enumerate(names):
        speed = numbers.speed(name)
        colour = OURS if name.startswith("ours") else ALONE if name.startswith("instances") else PEER
        axes.barh(row, speed.median, height=0.62, color=colour)
        axes.plot([speed.low, speed.high], [row, row], color=INK, linewidth=1)
        axes.text(-0.02, row + 0.13, label(name), transform=beside, ha="right", color=colour, fontweight="bold")
        axes.text(1.02, row + 0.13, f"{speed.median:,.0f}", transform=beside)
    _plain(axes, len(names))


def _parts(axes: Axes, numbers: Numbers) -> None:
    beside = axes.get_yaxis_transform()
    for row, system in enumerate(SYSTEMS):
        found, left = numbers.parts(system), 0.0
        for parts, (_, colour) in PARTS.items():
            width = 1_000 * sum(found.get(part, 0.0) for part in parts)
            axes.barh(row, width, left=left, height=0.62, color=colour)
            left += width
        axes.text(-0.02, row + 0.13, f"ours, {system.upper()}", transform=beside, ha="right", fontweight="bold")
        axes.text(1.02, row + 0.13, f"{left:.1f}", transform=beside)
    for place, (title, colour) in enumerate(PARTS.values()):
        x, y = (place % 3) * 0.36, -0.34 - 0.15 * (place // 3)
        axes.text(x, y, f"■ {title}", transform=axes.transAxes, color=colour, fontsize=9.5)
    _plain(axes, len(SYSTEMS))


def _plain(axes: Axes, rows: int) -> None:
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0, labelsize=9, labelcolor=FAINT)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def label(name: str) -> str:
    """A contestant's label: library, system, and what is special about it."""
    library, system, *more = name.split("_")
    names = {
        "ours": "ours",
        "instances": "ours",
        "fuxictr": "FuxiCTR",
        "rechub": "torch-rechub",
        "deepctr": "DeepCTR-Torch",
    }
    special = ", item a page" if library == "instances" else " (Dice)" if more else ""
    return f"{names[library]}, {system.upper()}{special}"
