from __future__ import annotations

from pathlib import Path

import pytest

from lightning_ccn.cli import main
from lightning_ccn.data.dataset import Dataset
from tests.data.build.raw_logs import EXPOSURES, exposure, four_views, write_rows, write_spec


def run(*words: object) -> int:
    try:
        return main(["data", *map(str, words)])
    except SystemExit as caught:
        return int(caught.code or 0)


def test_build_prints_stages_and_a_summary_and_then_has_nothing_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    words = ["build", write_spec(tmp_path), tmp_path / "out", "--memory_limit", "1GB", "--threads", "1"]
    assert run(*words) == 0
    said = capsys.readouterr().out
    assert [line.split("  ")[0] for line in said.splitlines()[:3]] == [
        "impressions read", "page views formed", "impressions on page views",
    ]  # fmt: skip
    assert "rows/s" in said and "train                  2           4           2.0           2" in said
    assert f"written to {tmp_path / 'out'}" in said and Dataset.open(tmp_path / "out").splits["test"].pages == 1
    assert run(*words) == 0
    assert capsys.readouterr().out.endswith("already; nothing to do\n")


def test_what_a_check_finds_in_the_folder_ends_the_build_with_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**row, "view": 70 - 2**63 + int(row["view"][1:]) - 70} for row in four_views()]
    write_rows(tmp_path / "exposures.parquet", rows)  # the first page id is the number that stands for null
    assert run("build", write_spec(tmp_path), tmp_path / "out") == 1
    assert "column page_id: null" in capsys.readouterr().err


def test_errors_of_a_build_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "exposures.parquet", [exposure("v", "u", "i", None)])
    assert run("build", write_spec(tmp_path), tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert said.startswith("ccn: error: no impression is left of 1: no time") and said.count("\n") == 1
    assert run("build", write_spec(tmp_path, exposures={**EXPOSURES, "itemx": "x"}), tmp_path / "out") == 2
    assert "exposures.itemx: no such key; did you mean item?" in capsys.readouterr().err
    assert run("build", tmp_path / "log.yaml", tmp_path / "out", "--memory", "1GB") == 2
    assert "did you mean --memory_limit?" in capsys.readouterr().err


def test_init_prints_a_draft_that_can_be_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    assert run("init", tmp_path) == 0
    (tmp_path / "log.yaml").write_text(capsys.readouterr().out)
    assert run("build", tmp_path / "log.yaml", tmp_path / "out") == 0
