"""What the README and the documentation name exists, and the example of sharded tables runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = "benchmarks|conf|docs|examples|lightning_ccn|slurm|tests"


def code_free(text: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.*)$", code_free(page.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    made_by_the_reader = re.findall(r'title="([^" ]+)', text)  # code blocks that a recipe says to write
    named = re.findall(rf"(?<![\w/.-])((?:{FOLDERS})/[\w/.-]*\w)", text)
    assert [name for name in named if not (ROOT / name).exists() and name not in made_by_the_reader] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", code_free(page.read_text()))
    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_fits_on_a_few_screens_and_shows_the_figure() -> None:
    readme = PAGES[0].read_text()
    assert len(readme.splitlines()) <= 200
    assert "](docs/figures/auc.svg)" in readme


def test_the_readmes_results_are_those_of_the_results_page() -> None:
    rows = re.findall(r"^\| (?!AUC)([^|]*?) \| (\.\d{4}[^|]*?) \|", PAGES[0].read_text(), flags=re.MULTILINE)
    table = (ROOT / "docs" / "results.md").read_text().partition("## The paper's Table 2")[2].partition("\n## ")[0]
    assert len(rows) == 6
    for title, auc in rows:
        assert f"| {title.partition(' (')[0]} | {auc} |" in table


@pytest.mark.slow
def test_the_example_of_sharded_tables_runs_on_two_ranks_in_sixty_lines_or_fewer(tmp_path: Path) -> None:
    program = ROOT / "examples" / "sharded_tables.py"
    assert len(program.read_text().splitlines()) <= 60
    ours = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK")
    environment = {k: v for k, v in os.environ.items() if k not in ours} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "`Trainer.fit` stopped: `max_epochs=1` reached." in done.stderr
    assert list(tmp_path.rglob("*.ckpt")), "no checkpoint was written"
