"""Puts the stored measurements into docs/performance.md, and draws its figure: `python -m benchmarks.report`.

The page has a pair of comments for each table: what is between them is replaced.
"""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks import tables
from benchmarks.numbers import Numbers
from docs.figures.performance import SVG, draw

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"


def stored(folder: Path = RESULTS) -> tuple[Numbers, Numbers | None]:
    """The measurements of one thread, and of two if there is one."""
    two = folder / "two_threads.json"
    return Numbers.read(folder / "one_thread.json"), Numbers.read(two) if two.exists() else None


def rendered(one: Numbers, two: Numbers | None) -> dict[str, str]:
    """Each generated piece of the page by its name."""
    return {
        "contest": tables.contest(one, two),
        "setting": tables.setting(one),
        "goals": tables.goals(one),
        "steps": tables.steps(one),
        "parts": tables.parts(one),
        "limits": tables.limits(one),
        "reader": tables.reader(one),
        "scaling": tables.scaling(one),
        "made with": tables.made_with([one, *([two] if two else [])]),
    }


def filled(page: str, pieces: dict[str, str]) -> str:
    """The page with the pieces between their comments.

    Raises:
        ValueError: The page has no place for a piece.
    """
    for name, text in pieces.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        if begin not in page or end not in page:
            raise ValueError(f"the page has no comments {begin} and {end}")
        place = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        page = place.sub(lambda _, words=f"{begin}\n\n{text}\n\n{end}": words, page)  # type: ignore[misc]
    return page


def main() -> None:
    """Writes the page and the figure."""
    one, two = stored()
    PAGE.write_text(filled(PAGE.read_text(), rendered(one, two)))
    draw(one)
    print(f"{PAGE}\n{SVG}")


if __name__ == "__main__":
    main()
