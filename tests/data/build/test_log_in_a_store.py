"""`ccn data build` from a log in an object store, and into one."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_ccn.data.build.build import build_log
from lightning_ccn.data.build.draft import draft
from lightning_ccn.data.build.log_files import find_log
from lightning_ccn.data.build.read_spec import read_spec
from lightning_ccn.data.check.check import check
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.store_path import StorePath
from lightning_ccn.errors import DataError
from tests.data.build.raw_logs import (
    EVENTS,
    EXPOSURES,
    NOON,
    build,
    contents,
    event,
    exposure,
    write_rows,
    write_spec,
)
from tests.s3_server import S3Server, upload

SHORT = {"short": {"types": ["click"], "length": 5}}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Two days of exposures in Parquet, in folders by day, and events in CSV files, one of them packed."""
    draw = random.Random(3)
    for day in range(2):
        rows = [
            exposure(f"v{day}-{view}", f"u{draw.randrange(5)}", f"i{item}", NOON + 86_400 * day + view, view % 2)
            for view in range(10)
            for item in draw.sample(range(9), 3)
        ]
        write_rows(tmp_path / "log" / "exposures" / f"day=2024-01-0{day + 1}" / "part.parquet", rows)
    events = [event(f"u{at % 5}", f"i{draw.randrange(9)}", f"2023-11-1{at % 4} 10:00:00") for at in range(40)]
    write_rows(tmp_path / "log" / "events" / "a.csv", events[:20])
    write_rows(tmp_path / "log" / "events" / "b.csv", events[20:])
    (tmp_path / "log" / "events" / "_left_out.csv").write_text("nothing")
    return tmp_path / "log"


def spec_of(log: Path | StorePath, at: Path) -> Path:
    exposures: dict[str, Any] = {**EXPOSURES, "files": f"{log}/exposures/*/*.parquet", "trigger": None}
    exposures = {name: value for name, value in exposures.items() if value}
    events = {**EVENTS, "files": f"{log}/events"}
    return write_spec(at, exposures=exposures, events=events, behaviours=SHORT)


def test_a_draft_of_a_log_in_a_store_builds_from_anywhere(log: Path, bucket: StorePath, tmp_path: Path) -> None:
    upload(log, bucket / "log")
    (bucket / "log" / "note.txt").write_text("no table")
    text = draft(f"{bucket}/log")
    assert f"files: {bucket}/log/exposures" in text and f"files: {bucket}/log/events" in text
    there, here = (yaml.safe_load(each) for each in (text.replace(f"{bucket}/log/", ""), draft(log)))
    assert there == here
    spec = tmp_path / "elsewhere.yaml"
    spec.write_text(text)
    assert read_spec(spec).exposures.files == (f"{bucket}/log/exposures",)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("s3://nowhere/log", r"^s3://nowhere/log: there is no such bucket"),
        ("BUCKET/nothing", r"nothing: no such folder; name the folder with the files of the log$"),
    ],
)
def test_a_draft_of_no_folder_in_a_store_is_refused(bucket: StorePath, folder: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        draft(folder.replace("BUCKET", str(bucket)))


def every_third_get(request: str, number: int) -> str:
    return "400" if request.startswith("GET") and number % 3 == 0 else ""


def test_a_log_in_a_store_that_fails_now_and_then_makes_the_folder_of_one_on_a_disk(
    log: Path, bucket: StorePath, s3_server: S3Server, tmp_path: Path
) -> None:
    there = upload(log, bucket / "log")
    build(spec_of(log, tmp_path / "here"))
    with s3_server.failing(every_third_get):
        build(spec_of(there, tmp_path / "there"))
    here, found = contents(tmp_path / "here" / "out"), contents(tmp_path / "there" / "out")
    assert found.keys() == here.keys()
    assert [name for name in here if found[name] != here[name] and name != "report.json"] == []
    assert not build(spec_of(there, tmp_path / "there")).built, "the same again"
    (there / "events" / "b.csv").write_text("user,item,time,type\n")
    with pytest.raises(DataError, match=rf"1 have changed, such as {there}/events/b.csv"):
        build(spec_of(there, tmp_path / "there"))


def test_patterns_name_files_of_a_store_as_those_of_a_disk(log: Path, bucket: StorePath) -> None:
    there = upload(log, bucket / "log")
    for pattern in ("events", "events/*.csv", "events/[ab].csv", "exposures", "exposures/day=*-02", "**/part.parquet"):
        here = find_log("x", [f"{log}/{pattern}"], Path(), None)
        found = find_log("x", [f"{there}/{pattern}"], Path(), None)
        inside = [path.relative_to(there).as_posix() for path in found.paths if isinstance(path, StorePath)]
        assert inside == [path.relative_to(log).as_posix() for path in here.paths if isinstance(path, Path)]
        assert (found.columns, found.headers, found.partitions) == (here.columns, here.headers, here.partitions)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("s3://nowhere/log/*.csv", r"^s3://nowhere/log/\*.csv: there is no such bucket"),
        ("BUCKET/nothing/*.csv", r"/nothing/\*.csv: no such file, but x.files names it"),
        ("BUCKET/note.txt", r"/note.txt: the name says neither Parquet nor CSV"),
        ("BUCKET/bad.csv.gz", r"/bad.csv.gz: "),
    ],
)
def test_files_that_are_no_log_are_refused(bucket: StorePath, pattern: str, message: str) -> None:
    (bucket / "note.txt").write_text("1")
    (bucket / "bad.csv.gz").write_text("not packed")
    with pytest.raises(DataError, match=message):
        find_log("x", [pattern.replace("BUCKET", str(bucket))], Path(), None)


def test_a_log_that_can_no_longer_be_read_is_named(
    log: Path, bucket: StorePath, s3_server: S3Server, tmp_path: Path
) -> None:
    there = upload(log, bucket / "log")
    reads = {"of the part": 0}

    def later(request: str, number: int) -> str:
        reads["of the part"] += request.startswith("GET") and "day=2024-01-02/part.parquet" in request
        return "400" if reads["of the part"] > 1 else ""  # the first is of its footer

    with (
        s3_server.failing(later),
        pytest.raises(DataError, match=rf"^{there}/exposures/day=2024-01-02/part.parquet: cannot be read, after 4 "),
    ):
        build(spec_of(there, tmp_path / "there"))
    assert not (tmp_path / "there" / "out").exists()


def test_a_dataset_folder_goes_to_a_store_when_it_is_whole(
    log: Path, bucket: StorePath, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec, out = spec_of(log, tmp_path / "spec"), f"{bucket}/world"

    def say(line: str) -> None:
        lines.append(line)

    lines: list[str] = []
    with (
        s3_server.failing(lambda request, number: "403" if "/world/_BEGUN" in request and "PUT" in request else ""),
        pytest.raises(DataError, match=r"/world/_BEGUN: the store refuses access"),
    ):
        build_log(spec, out, threads=1, say=say)
    assert (lines, os.path.exists("world.upload")) == ([], False), "before any work"
    with (
        s3_server.failing(lambda request, number: "400" if "/world/schema.yaml" in request else ""),
        pytest.raises(DataError, match=r"/world/schema.yaml: cannot be written, after 4 tries"),
    ):
        build_log(spec, out, threads=1, say=say)
    assert Dataset.open("world.upload").splits["train"].pages == 10
    lines.clear()
    build_log(spec, out, threads=1, say=say)
    assert [line.split("  ")[0] for line in lines] == ["files uploaded"], "nothing is built a second time"
    assert not os.path.exists("world.upload")
    assert check(out).errors == []
    lines.clear()
    assert not build_log(spec, out, threads=1, say=say).built
    assert lines == []
    grown = build_log(spec, f"{bucket}/grown", threads=1, extends=out, say=say)
    assert (grown.built, str(grown.folder)) == (True, f"{bucket}/grown")
    assert Dataset.open(f"{bucket}/grown").digests == Dataset.open(out).digests
