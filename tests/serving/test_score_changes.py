"""Requests or packages that are changed while `ccn score` runs: scores of two are never mixed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.new_folder import is_of
from lightning_ccn.errors import DataError
from lightning_ccn.serving.errors import PackageError
from lightning_ccn.serving.score_files import score_files

PLAN_IS_READ = "lightning_ccn.serving.score_files.is_of"  # once, after the plan is made and before it is written


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    table = pa.table({"items": [[1001, 1002]] * 3, "short": [[1003]] * 3})
    pq.write_table(table, tmp_path / "requests.parquet", row_group_size=2)
    return tmp_path / "requests.parquet"


def test_a_file_that_is_rewritten_meanwhile_is_refused(
    package: Path, requests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rewrite() -> None:
        about = requests.stat()
        requests.write_bytes(requests.read_bytes())
        os.utime(requests, ns=(about.st_atime_ns, about.st_mtime_ns + 1))

    monkeypatch.setattr(os, "replace", _and_then(os.replace, rewrite))  # after the first part
    with pytest.raises(DataError, match=r"requests.parquet: was changed while it was scored; .* again"):
        score_files(package, requests, tmp_path / "scores")
    assert not (tmp_path / ".scores.part" / "part-00001.parquet").exists()
    monkeypatch.undo()
    assert score_files(package, requests, tmp_path / "scores").candidates == 6


def test_a_file_that_is_rewritten_while_it_is_read_is_refused(
    package: Path, requests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = _and_then(pq.ParquetFile.read_row_groups, lambda: requests.write_bytes(b""))
    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", lambda file, groups: reading(file, groups))
    with pytest.raises(DataError, match="was changed while it was scored"):
        score_files(package, requests, tmp_path / "scores")


def test_a_link_that_is_moved_meanwhile_still_means_one_package(
    package: Path, timed_package: Path, requests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "today"
    link.symlink_to(package)

    def move() -> None:
        link.unlink()
        link.symlink_to(timed_package)  # which would miss the times of these requests

    monkeypatch.setattr(PLAN_IS_READ, _and_then(is_of, move))
    (tmp_path / ".scores.part").mkdir()
    assert score_files(link, requests, tmp_path / "scores").candidates == 6
    assert link.readlink() == timed_package


@pytest.mark.parametrize("parts", [0, 1])
def test_a_package_that_is_exchanged_in_its_place_is_refused(
    parts: int, package: Path, timed_package: Path, requests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(package, tmp_path / "package")

    def exchange() -> None:
        shutil.copytree(timed_package, folder, dirs_exist_ok=True)

    if parts:
        monkeypatch.setattr(os, "replace", _and_then(os.replace, exchange))
    else:
        monkeypatch.setattr(PLAN_IS_READ, _and_then(is_of, exchange))
    with pytest.raises(PackageError, match=r"package: was exchanged while it scored; run the same command again"):
        score_files(folder, requests, tmp_path / "scores")
    assert len(list(tmp_path.glob(".scores.part/*.parquet"))) == parts


def _and_then(function: Callable[..., object], then: Callable[[], object]) -> Callable[..., object]:
    """The function; after its first call, `then` is called."""
    calls: list[object] = []

    def instead(*args: object) -> object:
        found = function(*args)
        calls.append(found)
        if len(calls) == 1:
            then()
        return found

    return instead
