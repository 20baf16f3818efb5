"""A build of the same does nothing, one that failed leaves nothing, and one that was killed goes on."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from lightning_ccn.data.build.duckdb_engine import DuckDBEngine
from lightning_ccn.errors import DataError
from tests.data.build.raw_logs import (
    EVENTS,
    EXPOSURES,
    HALF,
    NOON,
    build,
    contents,
    event,
    exposure,
    four_views,
    write_rows,
    write_spec,
)


def test_a_second_build_of_the_same_does_nothing_and_of_another_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    spec = write_spec(tmp_path)
    assert build(spec).built
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert "nothing to do" in str(build(spec)) and before == {path: path.stat().st_mtime_ns for path in before}
    with pytest.raises(DataError, match="was built from another specification; name another folder, or remove it"):
        build(write_spec(tmp_path, split={**HALF, "gap": "1s"}))
    write_rows(tmp_path / "exposures.parquet", four_views()[:-1])
    with pytest.raises(DataError, match=r"when other files were there \(1 have changed, such as .*exposures.parquet\)"):
        build(write_spec(tmp_path))


def test_a_build_that_was_killed_before_its_folder_was_checked_checks_it_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    spec, stopped = write_spec(tmp_path), KeyboardInterrupt()
    with monkeypatch.context() as patch:
        patch.setattr("lightning_ccn.data.build.build.check", Mock(side_effect=stopped))
        with pytest.raises(KeyboardInterrupt):
            build(spec)
    said: list[str] = []
    report = build(spec, say=said.append)
    assert not report.built and report.checked and "it was checked now" in str(report)
    assert said[0].startswith("dataset folder checked")
    assert not build(spec, say=said.append).checked and len(said) == 1


def test_what_a_build_that_failed_has_left_is_not_taken_for_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    spec = write_spec(tmp_path)
    said: list[str] = []

    def stop(line: str) -> None:
        said.append(line)
        if line.startswith("page views written"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(spec, say=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exposures.parquet", "log.yaml"]
    assert build(spec).built


ON_DISK = {"memory_limit": "120MB"}  # less than 20 bytes for each of the log


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The specification of a log that is too large for the limit, with a broken line; `whole` is what it becomes."""
    folder = tmp_path_factory.mktemp("large")
    rows = [exposure(f"v{at // 10}", f"u{at // 10 % 97}", f"a long name of item {at * 31 % 499}", NOON + at // 10,
                     int(at % 3 == 0), slot=at) for at in range(4_000)]  # fmt: skip
    path = write_rows(folder / "exposures.csv", rows)
    lines = path.read_text().splitlines()
    lines[7] += ",more"
    path.write_text("\n".join(lines) + "\n")
    told = [event(f"u{at % 97}", f"a long name of item {at % 499}", NOON + at * 2) for at in range(2000)]
    write_rows(folder / "events.parquet", told)
    keys = {**EXPOSURES, "files": "exposures.csv", "time": {"column": "time", "unit": "s"}}
    items = {"files": "items.parquet", "item": "item", "attributes": ["tags"], "vectors": ["look"]}
    stock = [{"item": f"a long name of item {at}", "tags": [f"t{at % 7}"], "look": [at, 1.0],
              "note": os.urandom(7_000).hex()} for at in range(499)]  # fmt: skip
    write_rows(folder / "items.parquet", stock)
    long = {"types": ["click"], "length": 5}
    spec = write_spec(folder, exposures=keys, events=EVENTS, items=items, behaviours={"short": 3, "long": long})
    build(spec, "whole", **ON_DISK)
    return spec


def killed_after(stage: str, spec: Path, out: str, **options: Any) -> None:
    """Builds in a process of its own, which kills itself when a stage has ended."""

    def say(line: str) -> None:
        if line.startswith(stage) and "done before" not in line:
            os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(
        target=build, args=(spec, out), kwargs={**ON_DISK, **options, "say": say}
    )
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


def counted_statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the tables that the engine makes."""
    made: list[str] = []
    table: Callable[..., int] = DuckDBEngine.table

    def counted(self: DuckDBEngine, name: str, query: str) -> int:
        made.append(name)
        return table(self, name, query)

    monkeypatch.setattr(DuckDBEngine, "table", counted)
    return made


def test_a_build_that_was_killed_goes_on_from_its_last_finished_statement(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, said = large.parent, list[str]()
    for stage in ("impressions read", "items read", "behaviours in order"):
        killed_after(stage, large, "killed")
        assert not (folder / "killed").exists() and (folder / "..killed.work.part").is_dir()
    journal = folder / "..killed.work.part" / "journal.jsonl"
    journal.write_text(journal.read_text() + '{"statement": "cut o')
    made = counted_statements(monkeypatch)
    report = build(large, "killed", **ON_DISK, say=said.append)
    assert made == []  # all that is left is to write pages
    before = [line for line in said if "done before the interruption" in line]
    assert before[0].startswith("impressions read") and "3,999 rows" in before[0] and len(before) == 7
    assert contents(folder / "killed") == contents(folder / "whole")
    assert report.faults == [] and not (folder / "..killed.work.part").exists()
    assert report.counts["impressions"]["dropped"]["line of the CSV file is broken"] == 1
    assert "exposures.csv: row 8" in report.examples["impressions"]["line of the CSV file is broken"]


def test_another_log_or_other_statements_begin_anew(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, said = large.parent, list[str]()
    killed_after("items read", large, "other")
    journal = folder / "..other.work.part" / "journal.jsonl"
    lines = journal.read_text().splitlines()
    lines[5] = lines[5].replace('"statement": "', '"statement": "x')  # as a version with another query would see it
    journal.write_text("\n".join(lines) + "\n")
    build(large, "other", **ON_DISK, say=said.append)
    assert contents(folder / "other") == contents(folder / "whole") and not (folder / "..other.work.part").exists()
    killed_after("items read", large, "later")
    os.utime(folder / "events.parquet")
    made = counted_statements(monkeypatch)
    build(large, "later", **ON_DISK)
    assert made[0] == "given" and contents(folder / "later") == contents(folder / "whole")


def test_what_an_interrupted_build_has_done_is_kept_and_what_a_refused_one_has_done_is_not(large: Path) -> None:
    folder, said = large.parent, list[str]()

    def stop(error: BaseException) -> Callable[[str], None]:
        def say(line: str) -> None:
            said.append(line)
            if line.startswith("events read"):
                raise error

        return say

    with pytest.raises(KeyboardInterrupt):
        build(large, "stopped", **ON_DISK, say=stop(KeyboardInterrupt()))
    part = folder / "..stopped.work.part"
    assert said[-1] == f"what is done is in {part}: the same build goes on there; remove it if there will be none"
    with pytest.raises(DataError, match="no"):
        build(large, "stopped", **ON_DISK, say=stop(DataError("no")))
    assert not part.exists()
