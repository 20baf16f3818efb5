"""HTML and SVG as Python calls; text is escaped unless it came from here."""

from __future__ import annotations

from html import escape

_EMPTY = {"circle", "line", "link", "meta", "path", "rect", "use"}  # elements that have no end tag, or need none


class Markup(str):
    """Text that is HTML already."""


def tag(name: str, /, *children: str, **attributes: object) -> Markup:
    """An element.

    >>> tag("p", "a < b", tag("b", "!"), class_="note", data_x=3)
    '<p class="note" data-x="3">a &lt; b<b>!</b></p>'

    Args:
        name: of the element.
        *children: its content; what is no `Markup` is text, and escaped.
        **attributes: those that are None are left out; `class_` becomes `class`, `text_anchor` `text-anchor`.
    """
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    start = f"<{name}" + "".join(f' {key}="{escape(str(value))}"' for key, value in named.items())
    if name in _EMPTY:
        return Markup(start + "/>")
    return Markup(f"{start}>{join(*children)}</{name}>")


def join(*parts: str) -> Markup:
    """The parts one after another; what is no `Markup` is escaped."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))
