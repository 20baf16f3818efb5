"""The charts of the report of a dataset folder: by day, and by how much a page has. A colour for each split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
from markupsafe import Markup

from lightning_ccn.studies.html_report.markup import tag
from lightning_ccn.studies.html_report.svg import Rise, Scale, chart, decimal, dot, lettering, path, share, stretched

Days = Mapping[str, Mapping[str, Any]]  # by split, see `check.by_day.Days.plain`
Sums = tuple[Sequence[int], Sequence[int]]  # of each day: a part, and what it is a part of

MOST_POINTS = 120  # of a line; of more days, a point is the mean of some neighbouring ones
MOST_DOTS = 40  # with more, a line has no dots
HEIGHT = 96.0  # pixels
LEFT = 0.13  # fraction of a bar chart's width in front of the first bars
# Title -> the sums whose ratio is shown, and the factor of the ratio: 100 for percent. Without a second sum: of a day.
RATIOS = {
    "pages a day": ("pages", "", 1.0),
    "items a page": ("items", "pages", 1.0),
    "click rate, %": ("clicks", "labelled", 100.0),
    "pages with a trigger, %": ("with_trigger", "pages", 100.0),
    "pages with short behaviours, %": ("with_short", "pages", 100.0),
    "pages with long behaviours, %": ("with_long", "pages", 100.0),
}


def by_day(days: Days) -> Markup:
    """A panel for each of `RATIOS`; empty without a page."""
    if not days:
        return Markup()
    panels = []
    for title, (part, whole, factor) in RATIOS.items():
        sums = {s: (of[part], of[whole] if whole else [1] * len(of["day"])) for s, of in days.items()}
        panels.append(_panel(title, days, sums, factor, each_day=not whole))
    return tag("div", *panels, class_="panels wide")


def unknown(days: Days) -> Markup:
    """A panel for each column with unknown ids: their share; empty if no column has any."""
    names = dict.fromkeys(name for of_split in days.values() for name in of_split["columns"])
    panels = []
    for name in names:
        sums = {s: (of["columns"][name]["unknown"], of["columns"][name]["ids"]) for s, of in days.items()}
        if any(sum(part) for part, _ in sums.values()):
            panels.append(_panel(f"{name}, %", days, sums, 100.0))
    return tag("div", *panels, class_="panels wide") if panels else Markup()


def lengths(found: Mapping[str, Mapping[str, Any]]) -> Markup:
    """A panel for each kind of length: the share of a split's pages in each class; empty without a page."""
    return tag("div", *(_bars(what, kind) for what, kind in found.items()), class_="panels wide") if found else Markup()


def _panel(title: str, days: Days, sums: Mapping[str, Sums], factor: float, each_day: bool = False) -> Markup:
    """A chart of the ratio of two sums by day, of all splits.

    Args:
        title: What is shown.
        days: The dates of each split.
        sums: The two sums of each split.
        factor: Of the ratio.
        each_day: A day without pages counts as a day: the second sum of neighbouring days is their number.
    """
    dates = {split: [date.fromisoformat(day).toordinal() for day in of["day"]] for split, of in days.items()}
    first, last = min(d[0] for d in dates.values()), max(d[-1] for d in dates.values())
    length = -(-(last - first + 1) // MOST_POINTS)  # days of a point
    lines = {split: _points(dates[split], sums[split], length, factor, each_day) for split in sums}
    top = max([y for line in lines.values() for _, y in line] or [0.0])
    if top >= 10_000:
        title = f"thousand {title}"
        lines = {split: [(x, y / 1000) for x, y in line] for split, line in lines.items()}
        top /= 1000
    at, rise = Scale(first - 0.5, last + 0.5), Rise(Scale(0, top * 1.05 or 1.0), HEIGHT)
    drawn, dots = [], []
    for split, line in lines.items():
        x, y = [at(day) for day, _ in line], [rise(value) for _, value in line]
        drawn.append(path(x, y, class_=f"line {split}"))
        if len(line) <= MOST_DOTS:
            when = [f"{split}, {date.fromordinal(int(day))}: {decimal(value, 2)}" for day, value in line]
            marks = [dot(a, b, text, r=2.5, class_="point") for a, b, text in zip(x, y, when, strict=True)]
            dots.append(tag("g", *marks, class_=split))
    label = f"{title}, by day"
    body = rise.chart(stretched(*drawn, height=HEIGHT), *dots, label=label)
    ends = {first: "start", last: "end"} if last > first else {first: "middle"}
    place = {"start": 0.0, "middle": 0.5, "end": 1.0}
    texts = [lettering(place[a], 12, date.fromordinal(day).isoformat(), anchor=a) for day, a in ends.items()]
    return tag("div", tag("h4", title), body, chart(*texts, height=16, label=f"days of {title}"), class_="panel")


def _points(dates: Sequence[int], sums: Sums, length: int, factor: float, each_day: bool) -> list[tuple[float, float]]:
    """(day, value) of each period of `length` days in which the second sum is not 0."""
    period = (np.array(dates) - dates[0]) // length
    starts = np.flatnonzero(np.diff(period, prepend=-1))
    part, whole = (np.add.reduceat(np.array(values, dtype=np.float64), starts) for values in sums)
    if each_day:
        whole = np.minimum(length, dates[-1] + 1 - dates[0] - period[starts] * length)
    middle = np.add.reduceat(np.array(dates, dtype=np.float64), starts) / np.diff([*starts, len(dates)])
    return [(float(d), factor * float(p / w)) for d, p, w in zip(middle, part, whole, strict=True) if w]


def _bars(what: str, kind: Mapping[str, Any]) -> Markup:
    splits: Mapping[str, Mapping[str, Any]] = kind["splits"]
    used = max(int(np.flatnonzero(of["pages"])[-1]) + 1 for of in splits.values() if any(of["pages"]))
    least = kind["least"][:used]
    shares = {split: [100 * n / max(sum(of["pages"]), 1) for n in of["pages"][:used]] for split, of in splits.items()}
    rise = Rise(Scale(0, max(max(values) for values in shares.values()) * 1.05), HEIGHT)
    slot = (1 - LEFT) / used
    bars = []
    for number, (split, values) in enumerate(shares.items()):
        at = [LEFT + slot * (index + 0.1 + 0.8 * number / len(shares)) for index in range(used)]
        bars += [
            tag("rect", tag("title", f"{split}, {_class(kind['least'], index)}: {value:.1f}% of the pages"),
                x=share(at[index]), width=share(0.8 * slot / len(shares)), y=f"{rise(value):.1f}",
                height=f"{max(HEIGHT - rise(value), 0):.1f}", class_=f"bar-of {split}")
            for index, value in enumerate(values)
        ]  # fmt: skip
    step = -(-used // 8)
    texts = [
        lettering(
            LEFT + slot * (index + 0.5), 12, f"{least[index]:,}{'+' * (_class(kind['least'], index)[-1:] == '+')}"
        )
        for index in range(0, used, step)
    ]
    means = ", ".join(f"{split} {of['mean']:.1f} (at most {of['most']:,})" for split, of in splits.items())
    return tag(
        "div",
        tag("h4", f"{what} a page"),
        tag("small", "% of the pages of each split"),
        rise.chart(*bars, label=f"{what} a page"),
        chart(*texts, height=16, label=f"classes of {what} a page"),
        tag("small", f"mean: {means}"),
        class_="panel",
    )


def _class(least: Sequence[int], index: int) -> str:
    """The numbers of a class: `3`, `5 to 6`, or `5000+`."""
    if index + 1 == len(least):
        return f"{least[index]}+"
    last = least[index + 1] - 1
    return f"{least[index]}" if last == least[index] else f"{least[index]} to {last}"
