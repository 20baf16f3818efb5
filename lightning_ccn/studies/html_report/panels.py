"""Figures with a panel for each system, all on one scale: learning, calibration, page sizes, collaborative degrees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from lightning_ccn.studies.html_report.markup import join, tag
from lightning_ccn.studies.html_report.svg import (
    Rise,
    Scale,
    chart,
    decimal,
    dot,
    lettering,
    level,
    number,
    path,
    side_by_side,
    stretched,
)
from lightning_ccn.studies.html_report.values import SystemEntry, diagnostics, family, finite, pairs

Line = Sequence[tuple[float, float]]  # points, x from left to right
Run = tuple[int, int | None]  # its seed, and the value that it left out
LOSSES = 40  # points of a loss curve; each is the mean of neighbouring steps


def learning(systems: Sequence[SystemEntry], baseline: str) -> Markup:
    """Validation AUC, training loss, and the loss minus the baseline's, over steps; see `_over_others`."""
    losses = {str(system["name"]): _lines(system, "step", "loss") for system in systems}
    lanes = {
        "validation AUC": {str(system["name"]): _lines(system, "val_step", "val_auc") for system in systems},
        "training loss": losses,
    }
    if baseline in losses:
        title = next(str(system["title"]) for system in systems if system["name"] == baseline)
        lanes[f"training loss minus {title}’s"] = {
            name: {
                run: _difference(line, losses[baseline][run]) for run, line in runs.items() if run in losses[baseline]
            }
            for name, runs in losses.items()
            if name != baseline
        }
    last = max((line[-1][0] for lane in lanes.values() for runs in lane.values() for line in runs.values()), default=1)
    steps = Scale(0, last)
    backdrops, drawn = [], {str(system["name"]): Markup() for system in systems}
    for what, lane in lanes.items():
        lines = {name: [thin(line) for line in runs.values() if line] for name, runs in lane.items()}
        # the steep fall at the start would flatten the rest of the curve
        rise = Rise(
            Scale.around(y for every in lines.values() for line in every for x, y in line if steps(x) > 0.15), 84
        )
        backdrop, charts = _over_others(what, lines, steps, rise)
        backdrops.append(backdrop)
        for name, body in charts.items():
            if lines[name]:
                drawn[name] = join(drawn[name], tag("small", f"{what}, by step"), body)
    return _panels(systems, {name: join(body, _ticks(steps, "steps")) for name, body in drawn.items()}, backdrops)


def _difference(line: Line, other: Line) -> Line:
    """The first line minus the second, where both have a point."""
    subtracted = dict(other)
    return [(x, y - subtracted[x]) for x, y in line if x in subtracted]


def has_curves(systems: Sequence[SystemEntry]) -> bool:
    """Whether `learning` has anything to show."""
    return any(_lines(system, *axes) for system in systems for axes in (("step", "loss"), ("val_step", "val_auc")))


def page_sizes(systems: Sequence[SystemEntry]) -> Markup:
    """Page AUC by page size; see `_over_others`."""
    found = {str(system["name"]): diagnostics(system, "page_auc_by_size") for system in systems}
    classes = size_classes(systems)
    at = dict(zip((low for low, _, _ in classes), side_by_side(len(classes)), strict=True))
    lines: dict[str, list[Line]] = {
        name: [[(at[low], y) for low, y in pairs(part["low"], part["page_gauc"]) if low in at] for part in parts]
        for name, parts in found.items()
    }
    rise = Rise(Scale.around(_ys(lines.values())), 110)
    backdrop, drawn = _over_others("page AUC by page size", lines, Scale(0, 1), rise, dots=True)
    axis = chart(
        *(lettering(at[low], 12, f"{low:g}+") for low, _, _ in classes), height=16, label="items per page, at least"
    )
    return _panels(systems, {name: join(body, axis) for name, body in drawn.items()}, [backdrop])


def size_classes(systems: Iterable[SystemEntry]) -> list[tuple[float, float, float]]:
    """(lowest size, highest size, most pages of a run) of each class of page sizes that has a page AUC in any run."""
    seen: dict[float, tuple[float, float, float]] = {}
    for system in systems:
        for part in diagnostics(system, "page_auc_by_size"):
            for low, high, pages, auc in zip(part["low"], part["high"], part["pages"], part["page_gauc"], strict=True):
                if pages and finite(auc) is not None:
                    most = max(float(pages), seen[low][2] if low in seen else 0)
                    seen[low] = (float(low), float(high), most)
    return [seen[low] for low in sorted(seen)]


def calibration(systems: Sequence[SystemEntry]) -> Markup:
    """Click rate minus prediction, in percentage points, over prediction; the band is two standard errors wide."""
    parts = {str(system["name"]): diagnostics(system, "calibration") for system in systems}
    right = max((max(p["predicted"], default=0) for all_ in parts.values() for p in all_), default=1)
    x = Scale(0, right * 1.04)
    lines: dict[str, list[Line]] = {
        name: [[(p, 100 * (c - p)) for p, c in pairs(part["predicted"], part["clicked"])] for part in all_]
        for name, all_ in parts.items()
    }
    y = Rise(Scale.around([-1.0, 1.0, *_ys(lines.values())], 0.04), 100)
    panels = {}
    for name, runs in lines.items():
        band: list[Markup] = []
        if parts[name]:
            first = parts[name][0]
            rate, items = (np.array(first[key], float) for key in ("predicted", "items"))
            chance = 200 * np.sqrt(rate * (1 - rate) / items)
            across = [x(v) for v in [*rate, *rate[::-1]]]
            band = [path(across, [y(v) for v in [*chance, *-chance[::-1]]], class_="band")]
        drawn = [path([x(a) for a, _ in run], [y(b) for _, b in run], class_="line") for run in runs]
        inner = stretched(*band, *drawn, height=y.height)
        zero = level(y(0), "axis")
        body = y.chart(zero, inner, label=f"{name}: calibration")
        panels[name] = join(tag("small", "click rate minus prediction, points"), body, _ticks(x, "predicted"))
    return _panels(systems, panels, [])


def degrees(systems: Sequence[SystemEntry]) -> Markup:
    """Histograms of the collaborative degree of clicked and of unclicked items, before and after training."""
    panels = {}
    for system in systems:
        for part in diagnostics(system, "degrees")[:1]:
            lanes = [("before training", part["before"]), ("after", part["after"])]
            shown = [(when, lane) for when, lane in lanes if lane]
            x = _span([lane for _, lane in shown])
            axis = _ticks(x, "degree")
            panels[str(system["name"])] = join(
                *(_clusters(when, lane, x, lane is shown[0][1]) for when, lane in shown), axis
            )
    first = ["ccn", "tan", "tan_bounded"]
    shown_systems = [system for system in systems if system["name"] in panels]
    shown_systems.sort(key=lambda system: first.index(system["name"]) if system["name"] in first else len(first))
    return _panels(shown_systems, panels, [], "panels wide")


def separation(lane: Mapping[str, Any]) -> float:
    """The share of pairs of a clicked and an unclicked item in which the clicked one has the higher degree: an AUC.

    A pair in one bin of the histogram counts half.

    Args:
        lane: Counts by bin: `unclicked` and `clicked`.
    """
    unclicked, clicked = (np.array(lane[kind], float) for kind in ("unclicked", "clicked"))
    below = unclicked.cumsum() - unclicked / 2
    return float((clicked * below).sum() / max(clicked.sum() * unclicked.sum(), 1))


def thin(line: Line, points: int = LOSSES) -> Line:
    """The line with at most `points` points, each the mean of neighbouring ones."""
    if len(line) <= points:
        return line
    return [tuple(np.mean(part, axis=0).tolist()) for part in np.array_split(np.array(line), points)]


def _clusters(when: str, lane: Mapping[str, Any], x: Scale, named: bool) -> Markup:
    height = 70.0
    edges = np.array(lane["edges"], float)
    middle = [x(v) for v in np.repeat(edges, 2)]
    shapes = []
    density = {kind: np.array(lane[kind], float) / max(sum(lane[kind]), 1) for kind in ("unclicked", "clicked")}
    top = max(values.max() for values in density.values()) or 1
    for kind, values in density.items():
        steps = [0.0, *np.repeat(values, 2), 0.0]
        shapes.append(path(middle, [height - (height - 16) * v / top for v in steps], class_=kind))
    label = f"{when}: {decimal(separation(lane), 2)}"
    texts = [lettering(0, 10, label, "label", "start")]
    if named:
        kinds = [tag("tspan", kind, class_=kind) for kind in density]
        texts.append(tag("text", kinds[0], "\u2002", kinds[1], x="100%", y=10, text_anchor="end"))
    return chart(
        stretched(*shapes, height=height), level(height, "axis"), *texts, height=height, label=f"degrees {label}"
    )


def _span(lanes: Sequence[Mapping[str, Any]]) -> Scale:
    """A scale from the 0.2% to the 99.8% quantile of all degrees: an unbounded degree has long tails."""
    low, high = [], []
    for lane in lanes:
        counts = np.array(lane["unclicked"], float) + np.array(lane["clicked"], float)
        total = counts.cumsum() / max(counts.sum(), 1)
        edges = lane["edges"]
        low.append(edges[int(np.searchsorted(total, 0.002))])
        high.append(edges[min(int(np.searchsorted(total, 0.998)) + 1, len(edges) - 1)])
    return Scale.around([min(low), max(high)], 0.02)


def _lines(system: SystemEntry, x: str, y: str) -> dict[Run, Line]:
    """The learning curve of each run."""
    curves = {(run["seed"], run.get("left_out")): run.get("curve") or {} for run in system["runs"]}
    lines = {run: pairs(curve.get(x) or [], curve.get(y) or []) for run, curve in curves.items()}
    return {run: line for run, line in lines.items() if line}


def _ys(groups: Iterable[Iterable[Line]]) -> list[float]:
    return [y for lines in groups for line in lines for _, y in line]


def _over_others(
    what: str, lines: Mapping[str, Sequence[Line]], x: Scale, y: Rise, dots: bool = False
) -> tuple[Markup, dict[str, Markup]]:
    """A chart for each system: all its runs, in front of the first runs of all systems.

    Args:
        what: What the lines show.
        lines: The runs' lines, by system.
        x: Scale of the x coordinates.
        y: Scale of the y coordinates.
        dots: Whether to mark every point of a line, not only its end.

    Returns:
        The lines behind every chart, which the page needs once, and the charts by system.
    """

    def draw(line: Line, **attributes: object) -> Markup:
        return path([x(a) for a, _ in line], [y(b) for _, b in line], **attributes)

    name = "behind-" + "-".join(what.split())
    others = [draw(every[0], class_="other") for every in lines.values() if every]
    backdrop = tag("g", *others, id=name)
    charts = {}
    for system, runs in lines.items():
        inner = stretched(tag("use", href=f"#{name}"), *(draw(run, class_="line") for run in runs), height=y.height)
        ends = [point for run in runs for point in (run if dots else run[-1:])]
        marks = [dot(x(a), y(b), decimal(b, 4), r=2, class_="point") for a, b in ends]
        charts[system] = y.chart(inner, *marks, label=f"{system}: {what}")
    return backdrop, charts


def _ticks(x: Scale, what: str) -> Markup:
    """The numbers below a chart."""
    at = {text: x(number(text)) for text in x.ticks(4)}
    return chart(*(lettering(y, 12, t) for t, y in at.items() if 0 <= y <= 1), height=16, label=f"scale of {what}")


def _panels(
    systems: Sequence[SystemEntry], bodies: Mapping[str, Markup], backdrops: Sequence[Markup], class_: str = "panels"
) -> Markup:
    panels = [
        tag("div", tag("h4", str(system["title"])), bodies[str(system["name"])], class_=f"panel {family(system)}")
        for system in systems
    ]
    defs = [tag("svg", tag("defs", *backdrops), class_="defs")] if backdrops else []
    return tag("div", *defs, *panels, class_=class_)
