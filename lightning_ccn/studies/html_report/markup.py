"""HTML from templates, and SVG elements from Python calls. Text is escaped unless it is `Markup`."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

_VOID = {"circle", "line", "path", "use"}  # elements that this package writes without an end tag
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: object) -> Markup:
    """Fills a file of `templates/`."""
    return Markup(_TEMPLATES.get_template(template).render(values))


def tag(name: str, /, *children: str, **attributes: object) -> Markup:
    """An element.

    Args:
        name: Name of the element.
        *children: Content of the element.
        **attributes: Attributes whose value is not None; `class_` becomes `class`, `text_anchor` `text-anchor`.

    >>> print(tag("p", "a < b", tag("b", "!"), class_="note", data_x=3))
    <p class="note" data-x="3">a &lt; b<b>!</b></p>
    """
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    start = f"<{name}" + "".join(f' {key}="{escape(value)}"' for key, value in named.items())
    if name in _VOID and not children:
        return Markup(f"{start}/>")
    return Markup(f"{start}>{join(*children)}</{name}>")


def join(*parts: str) -> Markup:
    """The parts one after another."""
    return Markup().join(parts)
