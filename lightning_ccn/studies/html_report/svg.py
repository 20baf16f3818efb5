"""Parts of SVG charts. x is a fraction of the width and y is in pixels, so text keeps its size at any width."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lightning_ccn.studies.html_report.markup import tag

WIDE = 1000  # width of a `stretched` chart, in its own units


@dataclass(frozen=True)
class Scale:
    """Maps the values from `low` to `high` to 0 to 1."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Iterable[float], margin: float = 0.06) -> Scale:
        """A scale that includes all values, with a margin at both ends; 0 to 1 if there are no values."""
        values = list(values) or [0.0, 1.0]
        low, high = min(values), max(values)
        room = (high - low) * margin or abs(high) * margin or 1.0
        return cls(low - room, high + room)

    def __call__(self, value: float) -> float:
        """The value's place, 0 to 1 within the scale."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self, count: int = 4) -> list[str]:
        """At most `count` + 1 round numbers within the scale, with as many decimals as they need."""
        rough = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        places = next(places for places in range(20) if math.isclose(round(step, places), step, rel_tol=1e-6))
        return [decimal(number * step, places) for number in range(first, last + 1)]


@dataclass(frozen=True)
class Rise:
    """Maps values to pixels from the top of a chart; the highest value leaves room for its number.

    Attributes:
        scale: Scale of the values.
        height: Height of the chart in pixels.
    """

    scale: Scale
    height: float

    def __call__(self, value: float) -> float:
        """The value's y coordinate."""
        return self.height - (self.height - 13) * self.scale(value)

    def chart(self, *parts: str, label: str) -> Markup:
        """A chart of the parts in front of horizontal grid lines, whose values are at their left ends."""
        at = {text: self(number(text)) for text in self.scale.ticks(4)}
        lines = [level(y, "grid") for y in at.values()]
        numbers = [lettering(0, y - 3, text, anchor="start") for text, y in at.items()]
        return chart(*lines, *parts, *numbers, height=self.height, label=label)


def decimal(value: float, places: int, sign: str = "-") -> str:
    """A number without the zero before the decimal point, and with a proper minus sign.

    >>> decimal(0.68934, 4), decimal(-0.5, 1), decimal(0.12, 2, sign="+"), decimal(1.5, 1), decimal(0, 2)
    ('.6893', '−.5', '+.12', '1.5', '0')
    """
    if value == 0:
        return "0"
    text = f"{value:{sign}.{places}f}"
    head, point, tail = text.partition(".")
    return (head[:-1] if head in ("0", "-0", "+0") and point else head).replace("-", "−") + point + tail


def number(text: str) -> float:
    """The number that `decimal` has written."""
    return float(text.replace("−", "-"))


def share(fraction: float) -> str:
    """A fraction of the width, as a percentage for SVG."""
    return f"{100 * fraction:.2f}%"


def side_by_side(count: int) -> list[float]:
    """Evenly spaced x coordinates for `count` values, to the right of the numbers at the left edge."""
    return [0.14 + 0.8 * (index / (count - 1) if count > 1 else 0.5) for index in range(count)]


def chart(*parts: str, height: float, label: str) -> Markup:
    """A chart of `height` pixels; a screen reader reads the `label`."""
    return tag("svg", *parts, class_="chart", height=height, role="img", aria_label=label)


def stretched(*parts: str, height: float) -> Markup:
    """A part of a chart that is `WIDE` units wide, for paths, which cannot use percentages. It clips its content."""
    return tag("svg", *parts, width="100%", height=height, viewBox=f"0 0 {WIDE} {height:g}", preserveAspectRatio="none")


def path(x: Sequence[float], y: Sequence[float], **attributes: object) -> Markup:
    """A line through points, for `stretched`.

    Args:
        x: Fractions of the width.
        y: Pixels from the top.
        **attributes: Attributes of the SVG element.
    """
    points = " ".join(f"{WIDE * a:.0f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return tag("path", d=f"M{points}", **attributes)


def dot(x: float, y: float, title: str = "", **attributes: object) -> Markup:
    """A point; `title` is shown when the pointer rests on it."""
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
