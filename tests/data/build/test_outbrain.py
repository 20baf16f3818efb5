"""The specification of Outbrain's click log, on a log of its format that is made up."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lightning_ccn.cli import main
from lightning_ccn.data.dataset import Dataset
from tests.data.build.raw_logs import Row, build, outbrain_log, read_pages

DISPLAYS, OFFSET = 300, 1_465_876_799_998


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the log, with the dataset folder `out`."""
    folder = tmp_path_factory.mktemp("outbrain")
    with pytest.MonkeyPatch.context() as monkeypatch:
        report = build(outbrain_log(folder, DISPLAYS, monkeypatch))
    assert report.faults == [] and report.counts["impressions"]["dropped"].keys() == {"shown again on its page"}
    assert "trigger: " not in str(report)  # as converters end, which know what a log's trigger is
    return folder


@pytest.fixture(scope="module")
def pages(log: Path) -> list[Row]:
    return read_pages(log / "out")


def table(log: Path, name: str) -> list[dict[str, str]]:
    with open(log / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def second(timestamp: str | int) -> int:
    return (int(timestamp) + OFFSET) // 1000


def joined(lists: Iterable[list[Any]]) -> list[Any]:
    return [each for one in lists for each in one]


def alike(found: list[str | None], wanted: list[str]) -> bool:
    """Whether ids are the wanted ones, but for a few that are too rare for a row of their own."""
    same = [mine in (None, theirs) for mine, theirs in zip(found, wanted, strict=True)]
    return all(same) and found.count(None) < len(found) / 3


def test_a_display_is_a_page_view_of_the_document_that_its_user_was_reading(log: Path, pages: list[Row]) -> None:
    displays = {int(row["display_id"]): row for row in table(log, "events")}
    assert {page["page_id"] for page in pages} == displays.keys() and len(pages) == DISPLAYS
    assert all(page["time"] == second(displays[page["page_id"]]["timestamp"]) for page in pages)
    reading = [displays[page["page_id"]]["document_id"] for page in pages]
    assert alike([page["trigger"] for page in pages], reading)
    assert alike([page["user"] for page in pages], [displays[page["page_id"]]["uuid"] for page in pages])


def test_its_items_are_the_documents_of_its_ads_and_one_is_clicked(log: Path, pages: list[Row]) -> None:
    document = {row["ad_id"]: row["document_id"] for row in table(log, "promoted_content")}
    shown: dict[int, dict[str, int]] = {}
    for row in table(log, "clicks_train"):
        of_page = shown.setdefault(int(row["display_id"]), {})
        promoted = document[row["ad_id"]]  # by several ads
        of_page[promoted] = max(of_page.get(promoted, 0), int(row["clicked"]))
    wanted = [sorted(shown[page["page_id"]].items()) for page in pages]
    assert alike(joined(page["items"] for page in pages), joined([item for item, _ in of_page] for of_page in wanted))
    assert [page["clicks"] for page in pages] == [[clicked for _, clicked in of_page] for of_page in wanted]
    assert all(sum(page["clicks"]) == 1 for page in pages)


def test_its_behaviours_are_the_documents_that_the_user_viewed_before_it(log: Path, pages: list[Row]) -> None:
    user = {int(row["display_id"]): row["uuid"] for row in table(log, "events")}
    viewed: dict[str, list[tuple[int, str]]] = {}
    for row in table(log, "page_views_sample"):
        viewed.setdefault(row["uuid"], []).append((int(row["timestamp"]), row["document_id"]))
    wanted = []
    for page in pages:
        own = [(second(at), item) for at, item in sorted(viewed[user[page["page_id"]]])]
        wanted.append(before := [item for at, item in own if at < page["time"]])
        assert page["long_times"] == [at for at, _ in own[: len(before)]]
        assert page["short_times"] == page["long_times"][-20:]
        assert page["short_items"] == page["long_items"][-20:]
    assert alike(joined(page["long_items"] for page in pages), joined(wanted)) and sum(map(len, wanted)) > 5 * DISPLAYS


def test_the_category_of_a_document_is_the_one_of_most_confidence(log: Path) -> None:
    best: dict[str, tuple[float, str]] = {}
    for row in table(log, "documents_categories"):
        one = float(row["confidence_level"]), row["category_id"]
        best[row["document_id"]] = max(best.get(row["document_id"], one), one)
    items = [None, *pq.read_table(log / "out" / "vocabulary" / "item.parquet")["id"].to_pylist()]
    categories = [None, *pq.read_table(log / "out" / "vocabulary" / "category_id.parquet")["id"].to_pylist()]
    of_rows = pq.read_table(log / "out" / "items.parquet")["category_id"].to_pylist()
    found = {item: str(categories[row]) for item, row in zip(items, of_rows, strict=True) if item}
    assert found == {item: best[item][1] for item in found} and len(found) > 300


def test_the_check_says_that_no_page_has_several_clicks(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(log / "out")]) == 0
    said = capsys.readouterr().out
    assert "warning" not in said and "no page with two clicked items" in said
    figures = {line[:38].strip(): line[38:].strip() for line in said.splitlines()}
    assert figures["pages with both labels"] == "100.0%" and figures["of these, pages with several clicks"] == "0.0%"
    assert Dataset.open(log / "out").splits["train"].missing_inputs.keys() == {"two_clicks"}
