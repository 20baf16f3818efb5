"""The page of `ccn data check --html`, of real folders, in a real browser at the widths of a desk and of a phone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser

from lightning_ccn.cli import main
from lightning_ccn.data.check.check import check
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.studies.html_report import write_dataset_page
from lightning_ccn.studies.html_report.dataset_figures import by_day
from tests.studies.html_report.browser import SIZES, TEXTS, covered, opened

Edit = Callable[..., Path]
SECTIONS = ["Splits", "By day", "Unknown ids by day", "Lengths", "Columns of ids", "Tables"]
PANELS = ["pages a day", "items a page", "click rate, %", "pages with a trigger, %", "pages with short behaviours, %"]
PANELS += ["pages with long behaviours, %", "city, %", "trigger, %"]
LENGTHS = ["items a page", "clicks a page", "short behaviours a page", "long behaviours a page"]
CELLS = """rows => rows.map(row => [row.dataset.row, [...row.querySelectorAll("td")].map(cell => cell.innerText)])"""


@pytest.fixture(scope="module")
def whole(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a folder without errors, made by the command."""
    path = tmp_path_factory.mktemp("page") / "made" / "check.html"
    assert main(["data", "check", str(dataset), "--html", str(path)]) == 0
    return path


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_everything_is_visible_and_nothing_is_wider_than_the_window(
    browser: Browser,
    whole: Path,
    width: int,
    scheme: str,
) -> None:
    with opened(browser, whole, width, scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator("h1").inner_text() == "A valid dataset"
        assert page.locator("h2").all_inner_texts() == [*SECTIONS, "What a page tells of its own clicks"]
        assert page.locator("h4").all_inner_texts() == [*PANELS, *LENGTHS]
        boxes = page.locator("figure, .chart").evaluate_all("all => all.map(e => e.getBoundingClientRect().toJSON())")
        assert len(boxes) == 7 + 2 * (len(PANELS) + len(LENGTHS))
        assert all(box["height"] > 15 and box["width"] > 50 and box["right"] <= width for box in boxes)
        texts = page.evaluate(f"({TEXTS})(document)")
        assert [text for text, left, right, *_ in texts if left < 0 or right > width] == []
        assert covered(page) == []


def test_the_tables_have_the_numbers_of_the_folder(browser: Browser, whole: Path, dataset: Path) -> None:
    with opened(browser, whole) as page:
        rows = dict(page.locator("tr[data-row]").evaluate_all(CELLS)[:3])
        every = page.locator("tr[data-row]").evaluate_all(CELLS)
    for split, counts in Dataset.open(dataset).splits.items():
        assert rows[split][:2] == [str(counts.pages), str(counts.items)]
        assert rows[split][3] == str(counts.clicks)
        assert rows[split][4] == f"{100 * counts.clicks / counts.items:.1f}%"
        assert rows[split][5] == f"{100 * (counts.pages_with_trigger or 0) / counts.pages:.1f}%"
    unknown = [city == 0 for city in pq.read_table(dataset / "train").column("city").to_pylist()]
    assert ["city", ["city", f"{100 * sum(unknown) / len(unknown):.1f}%"]] in [
        [name, cells[:2]] for name, cells in every
    ]
    used = {user for split in rows for user in pq.read_table(dataset / split).column("user").to_pylist()}
    assert ["user", ["40", str(len(used)), f"{100 * len(used) / 40:.1f}%"]] in [
        [name, cells[:3]] for name, cells in every
    ]


def test_points_are_where_their_numbers_belong(browser: Browser, whole: Path, dataset: Path) -> None:
    days = check(dataset).plain()["days"]
    expected = [pages for of in days.values() for pages in of["pages"]]
    middle = "points => points.map(p => { const r = p.getBoundingClientRect(); return (r.top + r.bottom) / 2 })"
    with opened(browser, whole) as page:
        y = page.locator(".panel").first.locator(".point").evaluate_all(middle)
        rates = page.locator(".panel", has_text="click rate").locator(".chart title").all_text_contents()
    assert len(y) == len(expected)
    rate = 100 * days["train"]["clicks"][0] / days["train"]["labelled"][0]
    assert rates[0] == f"train, {days['train']['day'][0]}: {rate:.2f}"
    slope = (y[1] - y[0]) / (expected[1] - expected[0])
    assert slope < 0
    assert y == pytest.approx([y[0] + slope * (pages - expected[0]) for pages in expected], abs=0.6)  # pixels


def test_errors_and_warnings_are_at_the_top_and_shown_as_text(
    browser: Browser,
    dataset: Path,
    edit: Edit,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = shutil.copytree(dataset, tmp_path / "<img src=x onerror=alert(1)>")
    edit(folder, "train", lambda columns: columns["clicks"][0].append(0))
    (folder / "valid").mkdir()
    path = tmp_path / "bad.html"
    assert main(["data", "check", str(folder), "--html", str(path)]) == 1
    said = capsys.readouterr().err
    with opened(browser, path, 390) as page:
        assert page.locator("h1").inner_text() == "Not a valid dataset"
        assert page.locator("h2").all_inner_texts()[:3] == ["Errors", "Warnings", "Splits"]
        for kind in ("errors", "warnings"):
            lines = page.locator(f".{kind} li").all_inner_texts()
            assert lines == [line.partition(": ")[2] for line in said.splitlines() if line.startswith(f"{kind[:-1]}: ")]
            assert len(lines) == 1
        assert page.locator("img, script").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_a_folder_that_is_not_there_has_a_page_of_its_error(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "check.html"
    assert main(["data", "check", str(tmp_path / "nowhere"), "--html", str(path)]) == 1
    with opened(browser, path, 390) as page:
        assert page.locator(".errors li").all_inner_texts() == [f"{tmp_path}/nowhere: no such folder"]
        assert page.locator("figure").count() == 0


def test_the_file_names_no_address_and_needs_no_script(whole: Path) -> None:
    text = whole.read_text(encoding="utf-8")
    assert "://" not in text and "url(" not in text and "@import" not in text and "<script" not in text


def days_of(pages: list[int], clicks: list[int]) -> dict[str, Any]:
    """What a check counts of consecutive days."""
    dates = [f"20{20 + at // 336:02}-{1 + at % 336 // 28:02}-{1 + at % 28:02}" for at in range(len(pages))]
    sums = dict.fromkeys(("pages", "items", "labelled", "with_trigger", "with_short", "with_long"), pages)
    return {"train": {"day": dates, **sums, "clicks": clicks, "columns": {}}}


def test_many_days_become_a_line_of_few_points_and_keep_their_mean() -> None:
    few, many = by_day(days_of([50] * 30, [10] * 30)), by_day(days_of([50] * 3000, [10] * 3000))
    assert few.count('class="point"') == 6 * 30
    assert many.count('class="point"') == 0
    lines = [part.split('"')[0] for part in many.split('<path d="')[1:]]
    assert len(lines) == 6
    assert all(100 <= len(line.split()) <= 120 for line in lines)
    assert {line.split(",")[-1] for line in lines[2:3]} == {f"{96 - 83 * 20 / 21:.1f}"}  # a click rate of 20%


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("check.htm", "is not the name of an HTML file"),
        ("folder.html", "is not the name of an HTML file"),
        ("dataset/train/check.html", "lies among the parts of "),
        ("file/check.html", "cannot be written to: Not a directory"),
    ],
)
def test_a_place_where_no_page_belongs_is_refused_before_the_check(
    make_dataset: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, what: str
) -> None:
    folder = make_dataset()
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    assert main(["data", "check", str(folder), "--html", str(tmp_path / name)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("ccn: error: ") and what in line and "--html" in line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_report_is_written_as_it_is_given(tmp_path: Path, dataset: Path) -> None:
    write_dataset_page(check(dataset).plain(), tmp_path / "one.html")
    write_dataset_page(check(dataset).plain(), tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
