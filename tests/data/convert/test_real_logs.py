"""The converter on the EB-NeRD demo and fixture, if CCN_REAL_DATA names the folder with them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lightning_ccn.data.check.check import check
from lightning_ccn.data.convert.ebnerd import convert_ebnerd
from lightning_ccn.data.dataset import Dataset

REAL = os.environ.get("CCN_REAL_DATA", "")

pytestmark = pytest.mark.skipif(not REAL, reason="CCN_REAL_DATA names no folder with ebnerd_demo/ and ebnerd_fixture/")


# Article page views of the week of 18 May 2023, before the trigger is dropped.
@pytest.mark.parametrize(
    ("log", "impressions", "pages", "items", "clicks", "several"),
    [
        ("ebnerd_demo", 24_724, 5_767, 14.513, 1.278, 0.167),
        ("ebnerd_fixture", 1_046, 236, 13.737, 1.297, 0.199),
    ],
)
def test_article_page_views_are_as_many_and_as_large_as_counted_by_hand(
    log: str, impressions: int, pages: int, items: float, clicks: float, several: float, tmp_path: Path
) -> None:
    report = convert_ebnerd(Path(REAL) / log, tmp_path / "out", drop_trigger=False)
    assert report.counts["impressions"]["read"] == {"total": impressions}
    assert report.counts["pages"]["read"] == {"total": pages}
    kept = sum(report.counts["pages"]["kept"].values())
    assert report.counts["items"]["kept"]["total"] / kept == pytest.approx(items, abs=0.01)
    assert report.counts["clicks"]["kept"]["total"] / kept == pytest.approx(clicks, abs=0.01)
    assert report.counts["pages"]["noted"]["with several clicks"] / kept == pytest.approx(several, abs=0.001)
    assert check(tmp_path / "out", False).errors == []


def test_the_trigger_is_in_half_of_the_lists_and_is_hardly_clicked(tmp_path: Path) -> None:
    report = convert_ebnerd(Path(REAL) / "ebnerd_demo", tmp_path / "out", pages="impression")
    triggers = report.counts["items"]["dropped"]["the trigger itself"]
    assert triggers / report.counts["pages"]["read"]["total"] == pytest.approx(0.477, abs=0.001)
    assert report.counts["clicks"]["dropped"]["on the trigger itself"] / triggers == pytest.approx(0.011, abs=0.001)
    assert Dataset.open(tmp_path / "out").schema.category is None
