from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser
from sklearn.metrics import roc_auc_score

from lightning_ccn.studies.html_report import write_page
from lightning_ccn.studies.html_report.figures import agreement
from lightning_ccn.studies.html_report.panels import separation
from lightning_ccn.studies.html_report.svg import Scale, decimal
from tests.studies.html_report.browser import SIZES, TEXTS, covered, opened
from tests.studies.html_report.example import comparison, left_out

SECTIONS = {
    "AUC",
    "Page AUC",
    "Results",
    "Order of the systems, here and in the paper",
    "Upper bounds of the AUC",
    "Collaborative degree of clicked and unclicked items",
    "Sensitivity of CCN to λ, τ and ξ",
    "Page AUC by page size",
    "Learning curves",
    "Calibration",
    "Other metrics and costs",
    "Search",
}
# For each row of a table: [system, [[metric, text] of each cell]].
CELLS = """rows => rows.map(
    row => [row.dataset.system, [...row.querySelectorAll("td")].map(cell => [cell.dataset.metric, cell.innerText])])"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A comparison with all data, and its page."""
    content = json.loads(json.dumps(comparison()))
    path = tmp_path_factory.mktemp("page") / "compare.html"
    write_page(content, path)
    return content, path


@pytest.fixture
def written(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    def write(content: dict[str, Any]) -> Path:
        write_page(json.loads(json.dumps(content)), tmp_path / "compare.html")
        return tmp_path / "compare.html"

    return write


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_every_figure_is_visible_and_nothing_is_wider_than_the_window(
    browser: Browser, whole: tuple[dict[str, Any], Path], width: int, scheme: str
) -> None:
    with opened(browser, whole[1], width, scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert set(page.locator("h2").all_inner_texts()) == SECTIONS | {"Method"}
        boxes = page.locator("figure, .chart").evaluate_all("all => all.map(e => e.getBoundingClientRect().toJSON())")
        assert len(boxes) > 100
        assert all(box["height"] > 15 and box["width"] > 50 and box["right"] <= width for box in boxes)
        texts = page.evaluate(f"({TEXTS})(document)")
        assert len(texts) > 500
        assert [text for text, left, right, *_ in texts if left < 0 or right > width] == []


def test_texts_of_a_chart_do_not_cover_one_another(browser: Browser, whole: tuple[dict[str, Any], Path]) -> None:
    for width in (1280, 390):
        with opened(browser, whole[1], width) as page:
            assert covered(page) == []


def test_the_tables_have_the_comparisons_numbers(browser: Browser, whole: tuple[dict[str, Any], Path]) -> None:
    content, path = whole
    with opened(browser, path) as page:
        rows = page.locator("tr[data-system]").evaluate_all(CELLS)
    shown = {(name, metric): text for name, cells in rows for metric, text in cells if metric}
    results = {name: [text for _, text in cells] for name, cells in rows if cells[0][0] == "auc"}
    for system in content["systems"]:
        for metric, value in system["summary"].items():
            if metric in ("auc", "page_gauc", "logloss", "normalized_entropy", "calibration", "intent_auc"):
                assert shown[system["name"], metric] == f"{value['mean']:.4f}".removeprefix("0")
        auc, versus = system["summary"]["auc"], (system["versus"] or {}).get("auc")
        row = results[system["name"]]
        assert float(row[1]) == pytest.approx(auc["se"], abs=5.1e-5)
        if versus is None:
            assert (system["name"], row[2:6]) == ("sim", ["–"] * 4)
        else:
            assert float(row[2].replace("−", "-")) == pytest.approx(100 * versus["difference"], abs=0.0051)
            low, high = (float(end.replace("−", "-")) for end in row[3].split(" to "))
            assert (low, high) == pytest.approx((100 * versus["low"], 100 * versus["high"]), abs=0.0051)
            assert row[5] == ("–" if versus["seeds_to_see"] is None else f"{versus['seeds_to_see']:,}")
            assert row[4] == "< .001" if versus["p"] < 0.001 else float(row[4]) == pytest.approx(versus["p"], abs=6e-4)
    best = sorted(content["systems"], key=lambda system: -system["summary"]["auc"]["mean"])
    assert list(results) == [system["name"] for system in best]


def test_points_are_where_their_numbers_belong(browser: Browser, whole: tuple[dict[str, Any], Path]) -> None:
    content, path = whole
    with opened(browser, path) as page:
        x = (
            page.locator(".ranking")
            .first.locator(".point")
            .evaluate_all(
                "points => points.map(p => { const r = p.getBoundingClientRect(); return (r.left + r.right) / 2 })"
            )
        )
    means = sorted((system["summary"]["auc"]["mean"] for system in content["systems"]), reverse=True)
    assert len(x) == len(means)
    slope, start = np.polyfit(means, x, 1)
    assert slope > 0
    np.testing.assert_allclose(x, slope * np.array(means) + start, atol=0.5)  # pixels


def test_missing_figures_are_explained_and_not_drawn_empty(
    browser: Browser, written: Callable[[dict[str, Any]], Path]
) -> None:
    content = comparison(seeds=1, systems=("sim", "ccn"))
    content |= {"bounds": {}, "sensitivity": {}, "quick": True}
    for system in content["systems"]:
        system |= {"paper_auc": None, "search": []}
        for run in system["runs"]:
            run["diagnostics"] = None
            run["curve"] = {"step": [], "loss": [], "val_step": [], "val_auc": []}
    with opened(browser, written(content), 390) as page:
        shown = {"AUC", "Page AUC", "Results", "Other metrics and costs"}
        assert set(page.locator("h2").all_inner_texts()) == shown | {"Method", "Not shown"}
        lines = page.locator(".left-out li").all_inner_texts()
        assert {line.split(":")[0] for line in lines} == SECTIONS - shown
        assert all(len(line.split(": ")[1]) > 10 for line in lines)
        assert "it needs two" in page.locator("main").inner_text()
        assert page.locator(".quick").count() == 1
        assert page.locator(".bar").count() == 0  # no standard error


def test_left_out_values_are_shown_with_their_mean_and_its_interval(
    browser: Browser, written: Callable[[dict[str, Any]], Path]
) -> None:
    content = left_out(3)
    with opened(browser, written(content), 390) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        table = page.locator("figure", has=page.locator("h2", has_text="Each scenario left out of training"))
        rows = [row.split("\t") for row in table.locator("tbody tr").all_inner_texts()]
        text = page.locator("main").inner_text()
        assert page.locator(".ranking").first.locator(".run").count() == 9  # three values of three systems
    assert [row[0] for row in rows] == ["place 0", "place 1", "place 2", "mean", "95% interval"]
    sources = [entry["systems"] for entry in content["left_out"]["values"]] + [content["systems"]]
    for row, systems in zip(rows, sources, strict=False):
        aucs = [system["summary"]["auc"]["mean"] for system in systems]
        differences = [100 * system["versus"]["auc"]["difference"] for system in systems[1:]]
        shown = [float(cell.replace("−", "-")) for cell in row[4:]]
        assert shown == pytest.approx([*aucs, *differences], abs=0.0051)
    ccn = content["systems"][2]["versus"]["auc"]
    assert [float(end.replace("−", "-")) for end in rows[-1][-1].split(" to ")] == pytest.approx(
        [100 * ccn["low"], 100 * ccn["high"]], abs=0.0051
    )
    assert "A point is the mean over 3 left-out values of scenario" in text and "it needs two" not in text


def test_orders_have_a_table_of_their_own_with_differences(written: Callable[[dict[str, Any]], Path]) -> None:
    content = comparison(seeds=2, systems=("sim", "ccn"))
    content["metrics"] = {**content["metrics"], "order_auc": "AUC of orders", "order_logloss": "log loss of orders"}
    for system, auc in zip(content["systems"], (0.71, 0.69), strict=True):
        of = {"order_auc": {"mean": auc, "se": 0.002, "runs": 2}, "order_logloss": {"mean": 0.1, "se": 0.0, "runs": 2}}
        system["summary"] |= of
    difference = {"difference": -0.02, "low": -0.03, "high": -0.01, "p": 0.02, "seeds_to_see": 40}
    content["systems"][1]["versus"]["order_auc"] = difference
    figures = dict(re.findall(r"<figure><h2>([^<]*)</h2>(.*?)</figure>", written(content).read_text(), re.DOTALL))
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in figures["Orders"].split("<tr")]
    assert rows[-2:] == [
        [".7100", ".0020", "–", "–", "–", "–"],
        [".6900", ".0020", "−2.00", "−3.00 to −1.00", ".020", "40"],
    ]
    assert "log loss of orders" in figures["Other metrics and costs"]
    assert "AUC of orders" not in figures["Other metrics and costs"]
    assert "<h2>Orders</h2>" not in written(comparison(seeds=2, systems=("sim", "ccn"))).read_text()


def test_undefined_numbers_are_shown_as_undefined(browser: Browser, written: Callable[[dict[str, Any]], Path]) -> None:
    content = comparison(seeds=2, systems=("sim", "tan", "ccn"))
    broken = content["systems"][1]
    broken["summary"]["auc"] = {"mean": None, "se": None, "runs": 0}
    broken["versus"]["auc"] = {"difference": None, "se": None, "p": None, "pairs": 0}
    broken["runs"][0]["metrics"]["auc"] = None
    broken["runs"][1]["metrics"]["auc"] = float("nan")
    broken["runs"][1]["curve"]["val_auc"][0] = None
    del broken["summary"]["calibration"]
    with opened(browser, written(content)) as page:
        ranking = page.locator(".ranking").first
        assert "undefined" in ranking.inner_text()
        assert ranking.locator(".point").count() == 2
        assert page.locator("tr[data-system=tan] td[data-metric=calibration]").inner_text() == "–"
        assert "nan" not in page.content().lower()


def test_a_comparison_may_lack_its_baseline_or_anything_to_compare(
    browser: Browser, written: Callable[[dict[str, Any]], Path]
) -> None:
    for systems in (("tan", "ccn"), ("ccn",), ("sim",)):
        with opened(browser, written(comparison(seeds=2, systems=systems)), 390) as page:
            assert "There are no differences to sim, the baseline, to report." in page.locator("main").inner_text()
            assert page.locator(".ranking").first.locator(".point").count() == len(systems)
            assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_a_name_with_html_is_shown_as_text(browser: Browser, written: Callable[[dict[str, Any]], Path]) -> None:
    name = '<img src="x.png" onerror="alert(1)"> & <script>alert(2)</script>'
    content = comparison(seeds=2, systems=("sim", "ccn"))
    content["systems"][1]["title"] = content["dataset"]["folder"] = content["command"] = name
    content["systems"][1]["name"] = '"><b>'
    with opened(browser, written(content)) as page:
        assert page.locator("img, script").count() == 0
        assert name in page.locator("table").first.inner_text()
        assert page.locator("code").inner_text() == name


def test_the_file_names_no_address(whole: tuple[dict[str, Any], Path]) -> None:
    text = whole[1].read_text(encoding="utf-8")
    assert "://" not in text and "url(" not in text and "@import" not in text
    assert len(text) < 400_000


def test_separation_of_the_clusters_is_an_auc() -> None:
    rng = np.random.default_rng(0)
    degrees, clicks = rng.normal(size=500), rng.integers(0, 2, 500)
    degrees += 0.7 * clicks
    edges = np.linspace(-6, 6, 200)
    lane = {
        kind: np.histogram(degrees[clicks == label], edges)[0] for kind, label in (("unclicked", 0), ("clicked", 1))
    }
    assert separation(lane) == pytest.approx(roc_auc_score(clicks, np.digitize(degrees, edges)), abs=1e-9)


def test_agreement_counts_pairs_in_the_papers_order() -> None:
    def system(here: float, paper: float | None) -> dict[str, Any]:
        return {"summary": {"auc": {"mean": here}}, "paper_auc": paper}

    assert agreement([system(0.6, 0.1), system(0.7, 0.3), system(0.8, 0.2), system(0.9, None)]) == (2, 3)


def test_numbers_are_written_as_statisticians_do() -> None:
    assert [decimal(0.68934, 4), decimal(-0.5, 1), decimal(0.12, 2, "+"), decimal(12.5, 1)] == [
        ".6893",
        "−.5",
        "+.12",
        "12.5",
    ]
    assert Scale(0.6612, 0.6689).ticks(4) == [".662", ".664", ".666", ".668"]
    assert Scale(0, 1).ticks(4) == ["0", ".25", ".50", ".75", "1.00"]
    assert Scale.around([0.5]).ticks(4)  # a single value has ticks too
