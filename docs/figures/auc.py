"""Draws the AUC of all systems: `python docs/figures/auc.py` writes docs/figures/auc.svg.

The values come from the first table of docs/results.md, the colours from the `display` of each system's YAML file in
`conf/model`. `tests/docs/test_figures.py` keeps the drawing current.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results.md"
MODELS = ROOT / "conf" / "model"
SVG = Path(__file__).with_name("auc.svg")

FAMILIES = {  # family of a system (see `lightning_ccn.training.display`) -> colour, meaning, place in the legend
    "plain": ("#6a6f77", "trigger not used", 0.032),
    "intent": ("#14805e", "trigger weighed by intent", 0.228),
    "trigger": ("#1f68b3", "trigger", 0.507),
    "contrast": ("#c2460f", "trigger and contrastive losses", 0.622),
}
INK, FAINT, RULE = "#1d1f23", "#5d636c", "#dfe2e7"
STYLE: dict[Any, Any] = {  # Any: from 3.11 on, matplotlib types each key as a literal
    "svg.hashsalt": "lightning_ccn",  # without it, every drawing has other ids
    "svg.fonttype": "none",  # text stays text: searchable, and in the reader's font
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica Neue", "Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
}
WIDTH, ROW, ABOVE, BELOW = 8.33, 0.31, 1.15, 0.42  # inches: the drawing, a row, what is above and below the rows
LEFT, RIGHT, EDGE = 0.25, 0.825, 0.974  # fractions of the width: ends of the AUC axis, right end of the numbers


@dataclass(frozen=True)
class Result:
    """A row of the table.

    Attributes:
        title: Name of the system.
        auc: Test AUC, a mean over seeds.
        error: Its standard error.
    """

    title: str
    auc: float
    error: float

    @property
    def label(self) -> str:
        """AUC and standard error as the table shows them: .6739 ± .0005."""
        return f"{_decimal(self.auc)} ± {_decimal(self.error)}"


def read_results(markdown: str) -> tuple[list[Result], float]:
    """Reads the first table with an AUC column.

    Returns:
        The systems in the table's order, and the best attainable AUC, which is the table's last row.

    Raises:
        ValueError: The text has no such table.
    """
    lines = markdown.splitlines()
    start = next((at for at, line in enumerate(lines) if line.startswith("| system | AUC |")), None)
    if start is None:
        raise ValueError("no table that starts with | system | AUC |")
    results: list[Result] = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        title, auc = (cell.strip() for cell in line.split("|")[1:3])
        if title == "best attainable":
            return results, float(auc)
        mean, error = auc.split(" ± ")
        results.append(Result(title, float(mean), float(error)))
    raise ValueError("the table has no last row 'best attainable'")


def read_families(folder: Path = MODELS) -> dict[str, str]:
    """Title of a system -> its family, from the YAML files of a folder."""
    shown = [(yaml.safe_load(path.read_text()) or {}).get("display", {}) for path in sorted(folder.glob("*.yaml"))]
    return {display["title"]: display["family"] for display in shown if display}


def draw(results: Sequence[Result], attainable: float, families: Mapping[str, str], path: Path = SVG) -> None:
    """Writes the drawing as SVG: one row per system, its AUC as a dot and the standard error as a bar.

    Args:
        results: The systems, the topmost first.
        attainable: The best attainable AUC, which the drawing's text mentions.
        families: Family of each system by title, a key of `FAMILIES`.
        path: File to write.
    """
    rows = ROW * len(results)
    height = ABOVE + rows + BELOW
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), facecolor="white")
        axes = figure.add_axes((LEFT, BELOW / height, RIGHT - LEFT, rows / height))
        _head(figure, height, attainable)
        _rows(axes, results, families)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None, "Title": "AUC of twelve systems"})


def _head(figure: Figure, height: float, attainable: float) -> None:
    def up(inches_from_top: float) -> float:
        return 1 - inches_from_top / height

    figure.text(0.022, up(0.33), "Test AUC on a promotion that training never saw", fontsize=13.5, fontweight="bold")
    figure.text(
        0.022,
        up(0.60),
        "Synthetic world; mean of five seeds without the best and the worst, ± standard error; "
        f"best attainable: {_decimal(attainable)}",
        fontsize=9.5,
        color=FAINT,
    )
    for colour, meaning, x in FAMILIES.values():
        dot = Line2D([x], [up(0.875)], marker="o", markersize=6, color=colour, transform=figure.transFigure)
        figure.add_artist(dot)
        figure.text(x + 0.014, up(0.925), meaning, fontsize=9.5)


def _rows(axes: Axes, results: Sequence[Result], families: Mapping[str, str]) -> None:
    axes.set_xlim(
        min(result.auc - result.error for result in results) - 0.003,
        max(result.auc + result.error for result in results) + 0.002,
    )
    axes.set_ylim(len(results) - 0.5, -0.5)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MultipleLocator(0.01))
    axes.xaxis.set_major_formatter(lambda auc, _: _decimal(auc, 2))
    axes.tick_params(axis="x", length=0, pad=6, labelsize=9.5, labelcolor=FAINT)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    beside = axes.get_yaxis_transform()  # x: fraction of the axis; y: row
    left, right = ((edge - LEFT) / (RIGHT - LEFT) for edge in (0.022, EDGE))
    for row, result in enumerate(results):
        colour = FAMILIES[families[result.title]][0]
        if row and families[result.title] != families[results[row - 1].title]:
            axes.plot([left, right], [row - 0.5] * 2, color=RULE, linewidth=0.8, transform=beside, clip_on=False)
        axes.errorbar(
            result.auc, row, xerr=result.error, fmt="o", markersize=6.5, color=colour, elinewidth=1.8, capsize=3.5
        )
        middle = row + 0.13  # the baseline of text whose middle is the row's
        axes.text(-0.03, middle, result.title, transform=beside, ha="right", color=colour, fontweight="bold")
        axes.text(right, middle, result.label, transform=beside, ha="right")


def _decimal(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}f}".removeprefix("0")


def main() -> None:
    """Writes the drawing."""
    results, attainable = read_results(RESULTS.read_text())
    draw(results, attainable, read_families())
    print(SVG)


if __name__ == "__main__":
    main()
