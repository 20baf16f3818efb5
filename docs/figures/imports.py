"""Reads the package's imports and draws them: `python docs/figures/imports.py` writes docs/figures/imports.svg.

A room is a folder of the package, or a file in its root. `tests/test_architecture.py` keeps the drawing current and
compares the arrows with the list of those that are allowed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lightning_ccn"
SVG = Path(__file__).with_name("imports.svg")
BOX, GAP, FLOOR = (148, 34), 18, 84  # pixels: width and height of a box, between boxes, between floors

Arrows = dict[str, set[str]]


def arrows(package: Path = PACKAGE) -> Arrows:
    """Room -> the rooms that it imports. Imports for type checkers and modules named in strings count, too."""
    found: Arrows = {}
    for path in sorted(package.rglob("*.py")):
        here = _room(path.relative_to(package))
        if path.parent == package and path.name == "__init__.py":
            continue  # only names what other rooms hold
        rooms = found.setdefault(here, set())
        for module in _modules(ast.parse(path.read_text()), package.name):
            there = _room_of_module(package, module)
            if there not in (None, here, "__init__"):
                rooms.add(str(there))
    return found


def _modules(tree: ast.AST, package: str) -> Iterable[str]:
    """Dotted names below the package that a file imports, or names in a string such as "lightning_ccn.cli:main"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == package)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            name, colon, _ = node.value.partition(":")
            if colon and name.startswith(f"{package}.") and name.replace(".", "").replace("_", "").isalnum():
                yield name


def _room(relative: Path) -> str:
    folder = relative.parent.as_posix()
    return relative.stem if folder == "." else folder


def _room_of_module(package: Path, module: str) -> str | None:
    parts = module.split(".")[1:]
    while parts:
        path = package.joinpath(*parts)
        if path.with_suffix(".py").is_file():
            return _room(path.with_suffix(".py").relative_to(package))
        if (path / "__init__.py").is_file():
            return path.relative_to(package).as_posix()
        parts.pop()
    return None


def floors(found: Mapping[str, set[str]]) -> dict[str, int]:
    """Room -> its floor: 0 imports nothing of the package, and every room is above all that it imports.

    Raises:
        ValueError: Rooms import each other in a circle; names them.
    """
    floor: dict[str, int] = {}

    def place(room: str, above: tuple[str, ...]) -> int:
        if room in above:
            raise ValueError(f"a circle of imports: {' -> '.join([*above[above.index(room) :], room])}")
        if room not in floor:
            below = [place(other, (*above, room)) for other in sorted(found.get(room, ()))]
            floor[room] = 1 + max(below, default=-1)
        return floor[room]

    for room in sorted(found):
        place(room, ())
    return floor


def skeleton(found: Mapping[str, set[str]]) -> Arrows:
    """The arrows that no longer way through other rooms implies: enough to draw."""

    def reach(room: str) -> set[str]:
        return set(found[room]).union(*(reach(other) for other in found[room]))

    return {room: {o for o in others if not any(o in reach(p) for p in others - {o})} for room, others in found.items()}


def draw(found: Mapping[str, set[str]]) -> str:
    """The drawing as SVG: a row per floor, the top floor first, an arrow from a room down to what it imports."""
    imported = set().union(*found.values())
    floor = floors({room: others for room, others in found.items() if others or room in imported})
    rows = [sorted(room for room in floor if floor[room] == f) for f in range(max(floor.values()), -1, -1)]
    width = max(len(row) for row in rows) * (BOX[0] + GAP) + GAP
    height = len(rows) * FLOOR + GAP
    at: dict[str, tuple[float, int]] = {}
    for y, row in enumerate(rows):
        left = (width - len(row) * (BOX[0] + GAP) + GAP) / 2
        at |= {room: (left + x * (BOX[0] + GAP), GAP + y * FLOOR) for x, room in enumerate(row)}
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" ',
        f'font-size="13"><rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for room, others in sorted(skeleton(found).items()):
        for other in sorted(others):
            x1, y1 = at[room][0] + BOX[0] / 2, at[room][1] + BOX[1]
            x2, y2 = at[other][0] + BOX[0] / 2, at[other][1]
            bend = (y2 - y1) / 2
            lines.append(
                f'<path d="M{x1:.0f} {y1:.0f}C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}" '
                'fill="none" stroke="#8fa3b8"/>'
            )
    for room, (x, y) in sorted(at.items()):
        name = f"{room}/" if (PACKAGE / room).is_dir() else f"{room}.py"
        lines.append(
            f'<rect x="{x:.0f}" y="{y}" width="{BOX[0]}" height="{BOX[1]}" rx="6" fill="#eef3f9" stroke="#33658a"/>'
            f'<text x="{x + BOX[0] / 2:.0f}" y="{y + 21}" text-anchor="middle" fill="#1b2a38">{escape(name)}</text>'
        )
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    SVG.write_text(draw(arrows()))
    print(SVG)
