"""docs/figures/auc.svg shows the table of docs/results.md."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs.figures import worlds
from docs.figures.auc import FAMILIES, RESULTS, SVG, draw, read_families, read_results

RESULT_ROWS, ATTAINABLE = read_results(RESULTS.read_text())


def texts(svg: Path) -> list[str]:
    """The text elements of a drawing, in its order."""
    return ["".join(element.itertext()).strip() for element in ElementTree.parse(svg).iter() if _is(element, "text")]


def _is(element: ElementTree.Element, name: str) -> bool:
    return element.tag.rpartition("}")[2] == name


def test_every_system_of_the_table_has_a_yaml_file() -> None:
    families = read_families()
    assert {result.title for result in RESULT_ROWS} <= families.keys()
    assert len(RESULT_ROWS) >= 14
    assert {families[result.title] for result in RESULT_ROWS} == FAMILIES.keys()


def test_the_drawing_in_the_repository_shows_each_row_of_the_table_in_its_order() -> None:
    shown = texts(SVG)
    rows = [text for result in RESULT_ROWS for text in (result.title, result.label)]
    assert [text for text in shown if text in rows] == rows, "run: python docs/figures/auc.py"
    papers = [f"{result.paper:.4f}".replace("0.", ".") for result in RESULT_ROWS if result.paper]
    assert [text for text in shown if text in papers] == papers, "run: python docs/figures/auc.py"
    assert any(f"best attainable: {ATTAINABLE:.4f}".replace("0.", ".") in text for text in shown)


def test_the_same_table_makes_the_same_file(tmp_path: Path) -> None:
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    for path in (first, second):
        draw(RESULT_ROWS, ATTAINABLE, read_families(), path)
    assert first.read_bytes() == second.read_bytes()
    assert texts(first) == texts(SVG), "run: python docs/figures/auc.py"
    colours = first.read_text()
    assert all(colour in colours for colour, _, _ in FAMILIES.values())


def test_the_drawing_of_the_worlds_shows_the_table() -> None:
    read = worlds.read_worlds(RESULTS.read_text())
    shown = texts(worlds.SVG)
    assert [world.knob for world in read if not world.knob] == [""]  # the default world, once
    for world in read:
        if world.knob:
            assert f"{world.value:,g}" in shown, "run: python -m docs.figures.worlds"
            assert world.knob in worlds.PANELS


def test_the_same_worlds_make_the_same_file(tmp_path: Path) -> None:
    worlds.draw(worlds.read_worlds(RESULTS.read_text()), tmp_path / "worlds.svg")
    assert (tmp_path / "worlds.svg").read_bytes() == worlds.SVG.read_bytes(), "run: python -m docs.figures.worlds"


@pytest.mark.parametrize(
    "markdown", ["no table", "| system | AUC | paper |\n|---|---|---|\n| SIM | .6 ± .1 | |\n\nmore"]
)
def test_a_page_without_the_table_is_rejected(markdown: str) -> None:
    with pytest.raises(ValueError, match=r"no table|no last row"):
        read_results(markdown)
