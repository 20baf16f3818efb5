"""Draws the AUC of all systems: `python docs/figures/auc.py` writes docs/figures/auc.svg.

The values come from the first table of docs/results.md, the colours from the `display` of each system's YAML file in
`conf/model` or `conf/ablation`. `tests/docs/test_figures.py` keeps the drawing current.
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
FOLDERS = ROOT / "conf" / "model", ROOT / "conf" / "ablation"
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
WIDTH, ROW, ABOVE, BELOW = 8.33, 0.31, 1.35, 0.42  # inches: the drawing, a row, what is above and below the rows
OURS, PAPER = (0.25, 0.60), (0.76, 0.915)  # fractions of the width: ends of the two AUC axes
INTERVAL = 2.365  # standard errors: Student's t for 95%, 7 degrees of freedom (ten seeds less two, less one)
NUMBERS, PAPERS_NUMBERS, START = 0.735, 0.978, 0.022  # right ends of the numbers, left end of everything


@dataclass(frozen=True)
class Result:
    """A row of the table.

    Attributes:
        title: Name of the system.
        auc: Test AUC, a mean over seeds.
        error: Its standard error.
        paper: The AUC that the CCN paper reports; None if it has no such system.
    """

    title: str
    auc: float
    error: float
    paper: float | None

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
        title, auc, *_, paper = (cell.strip() for cell in line.strip()[1:-1].split("|"))
        if title == "best attainable":
            return results, float(auc)
        mean, error = auc.split(" ± ")
        results.append(Result(title, float(mean), float(error), float(paper) if paper else None))
    raise ValueError("the table has no last row 'best attainable'")


def read_families(folders: Sequence[Path] = FOLDERS) -> dict[str, str]:
    """Title of a system -> its family, from the YAML files of the folders."""
    files = [path for folder in folders for path in sorted(folder.glob("*.yaml"))]
    shown = [(yaml.safe_load(path.read_text()) or {}).get("display", {}) for path in files]
    return {display["title"]: display["family"] for display in shown if display}


def draw(results: Sequence[Result], attainable: float, families: Mapping[str, str], path: Path = SVG) -> None:
    """Writes the drawing as SVG: one row per system, its AUC with the interval over seeds, the paper's beside.

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
        _head(figure, height, attainable)
        ours, paper = (
            figure.add_axes((left, BELOW / height, right - left, rows / height)) for left, right in (OURS, PAPER)
        )
        _rows(ours, results, families)
        _papers_rows(paper, results, families)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None, "Title": "AUC of all systems"})


def _head(figure: Figure, height: float, attainable: float) -> None:
    def up(inches_from_top: float) -> float:
        return 1 - inches_from_top / height

    figure.text(0.022, up(0.33), "Test AUC on a promotion that training never saw", fontsize=13.5, fontweight="bold")
    figure.text(
        0.022,
        up(0.60),
        "Synthetic world; mean of ten seeds without the best and the worst, ± standard error; "
        f"bar: 95% interval over seeds; best attainable: {_decimal(attainable)}",
        fontsize=9.5,
        color=FAINT,
    )
    for (left, _), name in ((OURS, "here"), (PAPER, "in the paper, on its own data")):
        figure.text(left, up(ABOVE - 0.06), name, fontsize=9.5, color=FAINT, fontstyle="italic")
    for colour, meaning, x in FAMILIES.values():
        dot = Line2D([x], [up(0.875)], marker="o", markersize=6, color=colour, transform=figure.transFigure)
        figure.add_artist(dot)
        figure.text(x + 0.014, up(0.925), meaning, fontsize=9.5)


def _rows(axes: Axes, results: Sequence[Result], families: Mapping[str, str]) -> None:
    least, most = ([result.auc + sign * INTERVAL * result.error for result in results] for sign in (-1, 1))
    _axis(axes, len(results), least, most, step=0.01)
    beside = axes.get_yaxis_transform()  # x: fraction of the axis; y: row
    start, numbers, end = ((edge - OURS[0]) / (OURS[1] - OURS[0]) for edge in (START, NUMBERS, PAPERS_NUMBERS))
    for row, result in enumerate(results):
        colour = FAMILIES[families[result.title]][0]
        if row and families[result.title] != families[results[row - 1].title]:
            axes.plot([start, end], [row - 0.5] * 2, color=RULE, linewidth=0.8, transform=beside, clip_on=False)
        bar = INTERVAL * result.error
        axes.errorbar(result.auc, row, xerr=bar, fmt="o", markersize=6.5, color=colour, elinewidth=1.8, capsize=3.5)
        middle = row + 0.13  # the baseline of text whose middle is the row's
        axes.text(-0.04, middle, result.title, transform=beside, ha="right", color=colour, fontweight="bold")
        axes.text(numbers, middle, result.label, transform=beside, ha="right")


def _papers_rows(axes: Axes, results: Sequence[Result], families: Mapping[str, str]) -> None:
    known = [result.paper for result in results if result.paper is not None]
    _axis(axes, len(results), known, known, step=0.02)
    numbers = (PAPERS_NUMBERS - PAPER[0]) / (PAPER[1] - PAPER[0])
    for row, result in enumerate(results):
        if result.paper is None:
            continue
        colour = FAMILIES[families[result.title]][0]
        axes.plot(result.paper, row, "o", markersize=6, markerfacecolor="white", color=colour)
        text = _decimal(result.paper)
        axes.text(numbers, row + 0.13, text, transform=axes.get_yaxis_transform(), ha="right", color=FAINT)


def _axis(axes: Axes, rows: int, least: Sequence[float], most: Sequence[float], step: float) -> None:
    axes.set_facecolor("none")
    axes.set_xlim(min(least) - 0.003, max(most) + 0.003)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(lambda auc, _: _decimal(auc, 2))
    axes.tick_params(axis="x", length=0, pad=6, labelsize=9.5, labelcolor=FAINT)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _decimal(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}f}".removeprefix("0")


def main() -> None:
    """Writes the drawing."""
    results, attainable = read_results(RESULTS.read_text())
    draw(results, attainable, read_families())
    print(SVG)


if __name__ == "__main__":
    main()
