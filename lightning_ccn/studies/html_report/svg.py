"""Pieces of charts that fill any width without scaling their text: x is in per cent of the width, y in pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lightning_ccn.studies.html_report.markup import Markup, tag

WIDE = 1000  # units across a `stretched` chart


@dataclass(frozen=True)
class Scale:
    """Values between two ends as fractions of the way, 0 to 1."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Iterable[float], margin: float = 0.06) -> Scale:
        """Holds all values, with a margin at both ends; of no values, 0 to 1."""
        values = list(values) or [0.0, 1.0]
        low, high = min(values), max(values)
        room = (high - low) * margin or abs(high) * margin or 1.0
        return cls(low - room, high + room)

    def __call__(self, value: float) -> float:
        """The fraction."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self, count: int = 4) -> list[str]:
        """At most `count` + 1 round numbers within the scale, written with as many decimals as they need."""
        rough = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        places = next(places for places in range(20) if math.isclose(round(step, places), step, rel_tol=1e-6))
        return [decimal(number * step, places) for number in range(first, last + 1)]


@dataclass(frozen=True)
class Rise:
    """Values as pixels from the top of a chart, whose highest value leaves room for its number."""

    scale: Scale
    height: float

    def __call__(self, value: float) -> float:
        """The pixels."""
        return self.height - (self.height - 13) * self.scale(value)

    def chart(self, *parts: str, label: str) -> Markup:
        """The parts before horizontal lines at a few round values, which have their numbers at the left end."""
        at = {text: self(number(text)) for text in self.scale.ticks(4)}
        lines = [level(y, "grid") for y in at.values()]
        numbers = [lettering(0, y - 3, text, anchor="start") for text, y in at.items()]
        return chart(*lines, *parts, *numbers, height=self.height, label=label)


def decimal(value: float, places: int, sign: str = "-") -> str:
    """A number as statisticians print it.

    >>> decimal(0.68934, 4), decimal(-0.5, 1), decimal(0.12, 2, sign="+"), decimal(1.5, 1), decimal(0, 2)
    ('.6893', '−.5', '+.12', '1.5', '0')
    """
    if value == 0:
        return "0"
    text = f"{value:{sign}.{places}f}"
    head, point, tail = text.partition(".")
    return (head[:-1] if head in ("0", "-0", "+0") and point else head).replace("-", "−") + point + tail


def number(text: str) -> float:
    """What `decimal` wrote."""
    return float(text.replace("−", "-"))


def share(fraction: float) -> str:
    """A fraction of the width, as SVG and CSS say it."""
    return f"{100 * fraction:.2f}%"


def side_by_side(count: int) -> list[float]:
    """Places for so many values, apart from the numbers at the left edge."""
    return [0.14 + 0.8 * (index / (count - 1) if count > 1 else 0.5) for index in range(count)]


def chart(*parts: str, height: float, label: str) -> Markup:
    """A drawing; `label` says to a screen reader what it shows."""
    return tag("svg", *parts, class_="chart", height=height, role="img", aria_label=label)


def stretched(*parts: str, height: float) -> Markup:
    """A part of a chart, `WIDE` units across: what cannot be placed in per cent. Clips what lies outside."""
    return tag("svg", *parts, width="100%", height=height, viewBox=f"0 0 {WIDE} {height:g}", preserveAspectRatio="none")


def path(x: Sequence[float], y: Sequence[float], **attributes: object) -> Markup:
    """A line through points, for `stretched`.

    Args:
        x: fractions of the width.
        y: pixels.
        **attributes: of the SVG element.
    """
    points = " ".join(f"{WIDE * a:.0f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return tag("path", d=f"M{points}", **attributes)


def dot(x: float, y: float, title: str = "", **attributes: object) -> Markup:
    """A point, with a text that shows when the pointer rests on it."""
    circle = tag("circle", cx=share(x), cy=f"{y:.1f}", **attributes)
    return tag("g", circle, tag("title", title)) if title else circle


def upright(x: float, y1: float, y2: float, class_: str) -> Markup:
    """A vertical line."""
    return tag("line", x1=share(x), x2=share(x), y1=f"{y1:.1f}", y2=f"{y2:.1f}", class_=class_)


def level(y: float, class_: str, x1: float = 0, x2: float = 1) -> Markup:
    """A horizontal line."""
    return tag("line", x1=share(x1), x2=share(x2), y1=f"{y:.1f}", y2=f"{y:.1f}", class_=class_)


def lettering(x: float, y: float, text: str, class_: str = "tick", anchor: str = "middle") -> Markup:
    """Text at a point."""
    return tag("text", text, x=share(x), y=f"{y:.1f}", class_=class_, text_anchor=anchor)
