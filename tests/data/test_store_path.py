"""Files and folders of an object store, on a server of this machine that fails when it is told to."""

from __future__ import annotations

import gzip
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_ccn.data.store_connection import connection
from lightning_ccn.data.store_path import StorePath
from lightning_ccn.errors import DataError
from tests.s3_server import S3Server

FAILS_AT_ONCE = "400"  # pyarrow asks again after 500 and 503, for seconds


def test_names_are_taken_apart_and_put_together(tmp_path: Path) -> None:
    path = StorePath("s3://bucket/a/day=1/part.parquet?region=here", cache=tmp_path)
    assert (path.scheme, path.name, path.stem, path.suffix) == ("s3", "part.parquet", "part", ".parquet")
    assert path.parts == ("s3://bucket", "a", "day=1", "part.parquet")
    assert str(path.parent / "b") == "s3://bucket/a/day=1/b?region=here"
    assert path.address == "s3://bucket/a/day=1/part.parquet"
    assert path.relative_to(path.parent.parent).as_posix() == "day=1/part.parquet"
    assert (path.parent.cache, path.cached_in(None).cache) == (tmp_path, None)
    assert [str(StorePath(uri)) for uri in ("hdfs:///a/b", "hdfs://node:9/a", "gs://b")] == [
        "hdfs:///a/b",
        "hdfs://node:9/a",
        "gs://b",
    ]
    unordered = [StorePath(f"s3://b/{name}") for name in ("a.parquet", "a/c", "a b/c")]
    assert sorted(unordered) == sorted(unordered, key=lambda each: Path(*each.parts[1:])), "as a file system does"


def test_a_key_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(DataError, match=r"^s3://\*\*\*@bucket: there is a key in the address") as error:
        StorePath("s3://me:hush@bucket/a")
    assert "hush" not in str(error.value)


def test_files_are_written_listed_read_and_removed(bucket: StorePath) -> None:
    folder = bucket / "a b"
    assert (folder.exists(), folder.files(), list(folder.iterdir())) == (False, [], [])
    (folder / "day=1" / "é?#%20.txt").write_text("é")
    (folder / "z.txt").write_text("22")
    assert [path.relative_to(folder).as_posix() for path in folder.files()] == ["day=1/é?#%20.txt", "z.txt"]
    assert [path.stat().st_size for path in folder.files()] == [2, 2]
    assert sorted(path.name for path in folder.iterdir()) == ["day=1", "z.txt"]
    assert [path.name for path in folder.glob("*.txt")] == ["z.txt"]
    assert (folder.is_dir(), (folder / "z.txt").is_file(), (folder / "z.txt").is_dir()) == (True, True, False)
    assert folder.files()[0].read_text() == "é"
    (folder / "z.txt").write_text("333")
    assert (folder / "z.txt").stat().st_size == 3
    (folder / "z.txt").unlink()
    (folder / "z.txt").unlink()
    assert not (folder / "z.txt").exists()


def test_a_packed_file_arrives_as_it_is_and_is_unpacked_when_it_is_streamed(bucket: StorePath, tmp_path: Path) -> None:
    packed = tmp_path / "log.csv.gz"
    packed.write_bytes(gzip.compress(b"a,b\n1,2\n"))
    (bucket / packed.name).write(packed)
    (bucket / packed.name).copy_to(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == packed.read_bytes()
    with (bucket / packed.name).open_stream() as stream:
        assert stream.read() == b"a,b\n1,2\n"


@pytest.mark.parametrize("how", [FAILS_AT_ONCE, "cut"])
def test_what_fails_for_a_moment_is_done_again(
    bucket: StorePath, s3_server: S3Server, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    (bucket / "a").write_text("x" * 100)
    with s3_server.failing(lambda request, number: how if request.startswith("GET") and number <= 2 else ""):
        assert (bucket / "a").read_text() == "x" * 100
    if how == FAILS_AT_ONCE:  # pyarrow asks again by itself when a body was cut off
        assert f"{bucket}/a: cannot be read: AWS Error UNKNOWN (HTTP status 400)" in caplog.text
        ours = [record for record in caplog.records if record.name.startswith("lightning_ccn")]  # wandb logs in threads
        assert [record.levelno for record in ours] == [logging.WARNING]  # one `retried`, two requests


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (FAILS_AT_ONCE, r"a: cannot be read, after 4 tries: .* 400.*; check the network, and the endpoint"),
        ("403", r"a: the store refuses access; give the credentials of somebody who may do this, .* AWS_ACCESS_KEY_ID"),
        ("404", r"a: no such file"),
    ],
)
def test_what_fails_for_good_is_one_line_with_the_remedy(
    bucket: StorePath, s3_server: S3Server, how: str, message: str
) -> None:
    (bucket / "a").write_text("1")
    with (
        s3_server.failing(lambda request, number: how if request.startswith("GET") else ""),
        pytest.raises(DataError, match=message) as error,
    ):
        (bucket / "a").read_text()
    assert "\n" not in str(error.value)


def test_a_write_that_fails_for_good_is_one_line_and_one_that_fails_for_a_moment_is_whole(
    bucket: StorePath, s3_server: S3Server
) -> None:
    def some(request: str, number: int) -> str:
        return FAILS_AT_ONCE if request.startswith(("PUT", "POST")) and number <= 2 else ""

    with s3_server.failing(some):
        (bucket / "a").write_text("whole")
    assert (bucket / "a").read_text() == "whole"
    with (
        s3_server.failing(lambda request, number: "403"),
        pytest.raises(DataError, match=r"/b: the store refuses access"),
    ):
        (bucket / "b").write_text("1")
    assert not (bucket / "b").exists()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda path: path.refuse_missing(), "there is no such bucket"),
        (lambda path: path.write_text(""), "there is no such bucket"),
        (lambda path: path.read_text(), "no such file"),
        (lambda path: path.stat(), "no such file"),
    ],
)
def test_a_bucket_that_is_not_there_is_named(
    bucket: StorePath, act: Callable[[StorePath], object], message: str
) -> None:
    with pytest.raises(DataError, match=rf"^s3://nowhere/a: {message}"):
        act(StorePath("s3://nowhere/a"))


@pytest.mark.parametrize("uri", ["s3:/bucket/a", "s3://", "a/b"])
def test_what_is_no_address_is_refused(uri: str) -> None:
    with pytest.raises(DataError, match=r": is not an address such as s3://bucket/folder"):
        StorePath(uri)


def test_a_store_that_pyarrow_does_not_know_is_refused() -> None:
    with pytest.raises(DataError, match=r"^https://host: is not a store that pyarrow can open"):
        StorePath("https://host/a").exists()


def test_a_fork_reads_through_a_connection_of_its_own(bucket: StorePath) -> None:
    (bucket / "a").write_text("1")
    ours, _ = connection(bucket.store, bucket.options)
    if not (child := os.fork()):
        read = (bucket / "a").read_text() == "1"
        os._exit(not read or connection(bucket.store, bucket.options)[0] is ours)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert connection(bucket.store, bucket.options)[0] is ours
    assert (bucket / "a").read_text() == "1"


def test_the_endpoint_of_the_environment_is_that_of_the_address(
    bucket: StorePath, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bucket / "a").write_text("1")
    endpoint = s3_server.environment["AWS_ENDPOINT_URL"]
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    with_options = StorePath(f"{bucket}?endpoint_override={endpoint.partition('://')[2]}&scheme=http&region=here")
    assert (with_options / "a").read_text() == "1"
    assert [path.name for path in with_options.files()] == ["a"]
