"""Figures of the systems' AUCs: ranking, order here and in the paper, upper bounds, sensitivity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
    upright,
)
from lightning_ccn.studies.html_report.tables import RANKED
from lightning_ccn.studies.html_report.values import SystemEntry, error, family, finite, mean, ranked, single

ROW = 26  # pixels
SYMBOLS = {"contrast_weight": "λ, weight of both contrastive losses", "temperature": "τ, temperature of repulsion",
           "scale": "ξ, scale of attraction’s angle"}  # fmt: skip


def ranking(systems: Sequence[SystemEntry], metric: str, baseline: str, titles: Mapping[str, str]) -> Markup:
    """Each system's mean with its standard error and its single runs, best first; for the AUC also the paper's.

    Args:
        systems: Entries of compare.json.
        metric: Name of the metric.
        baseline: Name of the baseline, whose mean is marked.
        titles: Title of each metric by its name.
    """
    values = [value for system in systems for value in single(system, metric)]
    for system in systems:
        middle = mean(system, metric)
        if middle is not None:
            values += [middle - (error(system, metric) or 0), middle + (error(system, metric) or 0)]
    scale = Scale.around(values)
    reference = next((mean(system, metric) for system in systems if system["name"] == baseline), None)
    paper = metric == "auc" and any(finite(system.get("paper_auc")) is not None for system in systems)
    head = [tag("span"), tag("span"), tag("span", "mean")] + [tag("span", "paper")] * paper
    rows = [tag("div", *head, class_="row head")]
    for system in ranked(systems, metric):
        middle, printed = mean(system, metric), finite(system.get("paper_auc"))
        cells = [
            tag("span", str(system["title"]), class_="name"),
            _strip(system, metric, scale, reference, titles[metric]),
            tag("span", "undefined" if middle is None else decimal(middle, 4), class_="number"),
        ]
        if paper:
            cells.append(tag("span", "" if printed is None else decimal(printed, 4), class_="number faint"))
        rows.append(tag("div", *cells, class_=f"row {family(system)}"))
    ticks = [lettering(scale(number(text)), 12, text) for text in scale.ticks(4)]
    axis = chart(*ticks, height=16, label=f"scale of {titles[metric]}")
    rows.append(tag("div", tag("span"), axis, class_="row scale"))
    return tag("div", *rows, class_="ranking with-paper" if paper else "ranking")


def _strip(system: SystemEntry, metric: str, scale: Scale, reference: float | None, title: str) -> Markup:
    y = ROW / 2
    parts = [upright(scale(number(text)), 0, ROW, "grid") for text in scale.ticks(4)]
    if reference is not None:
        parts.append(upright(scale(reference), 0, ROW, "reference"))
    parts += [upright(scale(value), y - 4, y + 4, "run") for value in single(system, metric)]
    middle, se = mean(system, metric), error(system, metric)
    if middle is not None:
        text = f"{system['title']}: {decimal(middle, 4)}"
        if se is not None:
            text += f" ± {decimal(se, 4)}"
            parts.append(level(y, "bar", scale(middle - se), scale(middle + se)))
        parts.append(dot(scale(middle), y, text, r=4, class_="point"))
    return chart(*parts, height=ROW, label=f"{system['title']}, {title}")


def in_both(systems: Sequence[SystemEntry]) -> list[SystemEntry]:
    """The systems that have an AUC here and in the paper, best first."""
    return [s for s in ranked(systems, "auc") if mean(s, "auc") is not None and finite(s.get("paper_auc")) is not None]


def agreement(systems: Sequence[SystemEntry]) -> tuple[int, int]:
    """The number of pairs of systems that have the same order here and in the paper, and the number of all pairs."""
    here = in_both(systems)
    pairs = [(a, b) for i, a in enumerate(here) for b in here[i + 1 :]]
    return sum(a["paper_auc"] > b["paper_auc"] for a, b in pairs), len(pairs)


def order(systems: Sequence[SystemEntry]) -> Markup:
    """The order here on the left, the paper's on the right; a line joins the two places of each system."""
    ours = in_both(systems)
    theirs = sorted(ours, key=lambda system: -system["paper_auc"])
    lines = []
    for system in ours:
        y1, y2 = (ROW * (side.index(system) + 0.5) for side in (ours, theirs))
        lines.append(tag("line", x1="0", x2="100%", y1=y1, y2=y2, class_=f"slope {family(system)}"))
        lines += [dot(x, y, r=3.5, class_=f"point {family(system)}") for x, y in ((0, y1), (1, y2))]

    def side(which: Sequence[SystemEntry], value: Sequence[float]) -> Markup:
        items = [
            tag(
                "li", tag("span", system["title"]), tag("span", decimal(auc, 4), class_="number"), class_=family(system)
            )
            for system, auc in zip(which, value, strict=True)
        ]
        return tag("ol", *items)

    return tag(
        "div",
        tag("div", tag("b", "here"), side(ours, [mean(system, "auc") or 0 for system in ours])),
        chart(*lines, height=ROW * len(ours), label="order of the systems here and in the paper"),
        tag("div", tag("b", "paper"), side(theirs, [system["paper_auc"] for system in theirs])),
        class_="order",
    )


def bounds(systems: Sequence[SystemEntry], known: Mapping[str, float]) -> Markup:
    """Each system's AUC between chance and the best possible rankings.

    Args:
        systems: Entries of compare.json.
        known: `attainable_auc` and `oracle_auc`, as far as they are known.
    """
    limits = {
        "chance": 0.5,
        "attainable": finite(known.get("attainable_auc")),
        "oracle": finite(known.get("oracle_auc")),
    }
    ends = {name: value for name, value in limits.items() if value is not None}
    places = [(system, value) for system in systems if (value := mean(system, "auc")) is not None]
    best = max(places, key=lambda place: place[1], default=None)
    scale = Scale.around([*ends.values(), *(value for _, value in places)], 0.02)
    y, height = 62.0, 124
    parts = [level(y, "axis")]
    for name, value in ends.items():
        x = scale(value)
        anchor = "start" if x < 0.1 else "end" if x > 0.9 else "middle"
        parts += [upright(x, y - 30, y + 8, "limit"), lettering(x, y - 50, name, "label", anchor)]
        parts.append(lettering(x, y - 37, decimal(value, 4), "label", anchor))
    for system, value in places:
        title = f"{system['title']}: {decimal(value, 4)}"
        parts.append(dot(scale(value), y, title, r=4, class_=f"point {family(system)}"))
    if best:
        x = scale(best[1])
        parts += [upright(x, y + 6, y + 26, "lead"), lettering(x, y + 39, str(best[0]["title"]), "label")]
        parts.append(lettering(x, y + 53, decimal(best[1], 4), "label"))
    return chart(*parts, height=height, label="AUC of all systems between chance and the oracle")


def sensitivity(sweeps: Mapping[str, Sequence[Mapping[str, Any]]], titles: Mapping[str, str]) -> Markup:
    """A panel for each option of CCN: AUC and page AUC over its values. All panels have the same scales.

    Args:
        sweeps: For each option, its values and the runs with each value.
        titles: Title of each metric by its name.
    """
    scales = {
        metric: Scale.around((y for points in sweeps.values() for point in points for y in _runs(point, metric)), 0.15)
        for metric in RANKED
    }
    panels = []
    for option, points in sweeps.items():
        points = sorted(points, key=lambda point: point["value"])
        at = dict(zip((point["value"] for point in points), side_by_side(len(points)), strict=True))
        lanes = [_lane(option, points, at, metric, scale, titles[metric]) for metric, scale in scales.items()]
        axis = chart(
            *(lettering(x, 12, f"{value:g}") for value, x in at.items()), height=16, label=f"values of {option}"
        )
        panels.append(tag("div", tag("h4", SYMBOLS.get(option, option)), *lanes, axis, class_="panel contrast"))
    return tag("div", *panels, class_="panels wide")


def _lane(
    option: str, points: Sequence[Mapping[str, Any]], at: Mapping[float, float], metric: str, scale: Scale, title: str
) -> Markup:
    rise = Rise(scale, 84)
    runs, means = [], []
    for point in points:
        values = [rise(value) for value in _runs(point, metric)]
        runs += [dot(at[point["value"]], y, r=1.8, class_="run") for y in values]
        if values:
            means.append((at[point["value"]], sum(values) / len(values)))
    line = [stretched(path(*zip(*means, strict=True), class_="line"), height=rise.height)] if means else []
    marks = [dot(x, y, r=3.5, class_="point") for x, y in means]
    body = rise.chart(*line, *runs, *marks, label=f"{title} over {option}")
    return join(tag("small", title), body)


def _runs(point: Mapping[str, Any], metric: str) -> list[float]:
    return [value for run in point["runs"] if (value := finite(run.get(metric))) is not None]
