"""A folder in a store that is whole once it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_ccn.callbacks.prediction_writer import PredictionWriter
from lightning_ccn.data.new_store_folder import NewStoreFolder
from lightning_ccn.data.store_path import StorePath
from lightning_ccn.data.store_upload import move_to_store
from lightning_ccn.errors import DataError
from tests.s3_server import S3Server


def names(folder: StorePath) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.files()]


def test_a_folder_is_whole_when_it_is_finished(bucket: StorePath) -> None:
    new = NewStoreFolder(bucket / "a", "name another")
    (bucket / "a" / "part").write_text("1")
    assert names(bucket / "a") == ["_BEGUN", "part"]
    with pytest.raises(DataError, match=r"/a: process \d+ on .* since .* began to write it, .* or name another$"):
        NewStoreFolder(bucket / "a", "name another")
    new.finish()
    assert names(bucket / "a") == ["_SUCCESS", "part"]
    with pytest.raises(DataError, match=r"/a: exists and is not empty: it has _SUCCESS; name another$"):
        NewStoreFolder(bucket / "a", "name another")


def test_what_was_written_can_be_discarded(bucket: StorePath, s3_server: S3Server) -> None:
    new = NewStoreFolder(bucket / "a", "")
    (bucket / "a" / "part").write_text("1")
    with s3_server.failing(lambda request, number: "403"):
        new.discard()  # what it may not remove stays, and is not whole
    assert names(bucket / "a") == ["_BEGUN", "part"]
    new.discard()
    assert names(bucket / "a") == []


def test_predictions_are_refused_before_anything_is_scored(bucket: StorePath, s3_server: S3Server) -> None:
    (bucket / "a" / "part").write_text("1")
    with pytest.raises(DataError, match=r"/a: exists and is not empty: it has part; remove it, or name another with"):
        PredictionWriter(bucket / "a")
    with pytest.raises(DataError, match=r"^s3://nowhere/a: there is no such bucket"):
        PredictionWriter(StorePath("s3://nowhere/a"))
    with (
        s3_server.failing(lambda request, number: "403" if request.startswith(("PUT", "POST")) else ""),
        pytest.raises(DataError, match=r"/b/_BEGUN: the store refuses access"),
    ):
        NewStoreFolder(bucket / "b", "")


def test_a_folder_moves_to_a_store_with_its_last_file_at_the_end(
    bucket: StorePath, s3_server: S3Server, tmp_path: Path
) -> None:
    (tmp_path / "data" / "train").mkdir(parents=True)
    for name in ("stats.json", "schema.yaml", "train/part.parquet", "train/stats.json"):
        (tmp_path / "data" / name).write_text(name)
    last = f"{bucket}/data/stats.json".removeprefix("s3:/")
    with (
        s3_server.failing(lambda request, number: "400" if request.endswith(f"PUT {last}") else ""),
        pytest.raises(DataError, match=r"/data/stats.json: cannot be written, .* is in .*data, and the same command"),
    ):
        move_to_store(tmp_path / "data", bucket / "data", "stats.json", "")
    assert names(bucket / "data") == []
    before = len(s3_server.requests)
    assert move_to_store(tmp_path / "data", bucket / "data", "stats.json", "") == 4
    puts = [request for request in s3_server.requests[before:] if request.startswith("PUT")]
    order = [each for each in dict.fromkeys(puts) if each.endswith((".json", ".yaml", ".parquet"))]
    assert order[-1] == f"PUT {last}"
    assert names(bucket / "data") == ["_SUCCESS", "schema.yaml", "stats.json", "train/part.parquet", "train/stats.json"]
    assert not (tmp_path / "data").exists()
