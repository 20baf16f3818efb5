"""The builder on the EB-NeRD demo, beside the converter, if CCN_REAL_DATA names the folder with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lightning_ccn.data.convert.ebnerd import convert_ebnerd
from tests.data.build.raw_logs import Row, build, contents, read_pages, write_spec

REAL = os.environ.get("CCN_REAL_DATA", "")

pytestmark = pytest.mark.skipif(not REAL, reason="CCN_REAL_DATA names no folder with ebnerd_demo/")


def ebnerd(folder: Path) -> Path:
    """The specification of the demo: an impression of the log is a list, and a page view merges those of a session."""
    log = Path(REAL) / "ebnerd_demo" / "train"
    return write_spec(
        folder,
        exposures={
            "files": str(log / "behaviors.parquet"),
            "page": ["user_id", "session_id", "article_id"],
            "user": "user_id",
            "trigger": "article_id",
            "item": "article_ids_inview",
            "time": "impression_time",
            "clicks": {"ids": "article_ids_clicked"},
            "without_trigger": True,
        },
        events={
            "files": str(log / "history.parquet"),
            "user": "user_id",
            "item": "article_id_fixed",
            "time": "impression_time_fixed",
        },
        behaviours={"short": 20, "long": 300},
        split={"validation": 0.1, "test": 0.2},
    )


def by_key(folder: Path) -> dict[tuple[Any, ...], Row]:
    """What a page view with a trigger consists of, without the order of what happened at one time."""
    return {
        (page["user"], page["trigger"], page["time"]): {
            "clicks": dict(zip(page["items"], page["clicks"], strict=True)),
            "behaviours": sorted(zip(page["long_times"], page["long_items"], strict=True)),
        }
        for page in read_pages(folder)
        if page["trigger"] is not None
    }


def test_the_page_views_are_those_of_the_converter(tmp_path: Path) -> None:
    build(ebnerd(tmp_path))
    convert_ebnerd(Path(REAL) / "ebnerd_demo", tmp_path / "converted")
    built, converted = by_key(tmp_path / "out"), by_key(tmp_path / "converted")
    assert built == converted and len(built) == 5_767


@pytest.mark.spark
def test_spark_makes_the_same_folder(tmp_path: Path) -> None:
    build(ebnerd(tmp_path), "duckdb")
    build(tmp_path / "log.yaml", "spark", engine="spark")
    assert contents(tmp_path / "spark") == contents(tmp_path / "duckdb")
