"""Files of a store that are copied to this machine once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lightning_ccn.data.file_lock import FileLock, HeldError
from lightning_ccn.data.store_copies import default_cache, local_copy
from lightning_ccn.data.store_path import CHUNK, StorePath
from lightning_ccn.errors import DataError
from tests.s3_server import S3Server


def gets(server: S3Server) -> int:
    return sum(request.startswith("GET") for request in server.requests)


def test_one_of_several_processes_copies_and_the_others_wait(bucket: StorePath, s3_server: S3Server) -> None:
    (bucket / "items.parquet").write(b"x" * (CHUNK + 1))  # two requests
    before, children = gets(s3_server), []
    for _ in range(3):
        if not (child := os.fork()):
            os._exit(local_copy(bucket / "items.parquet").stat().st_size != CHUNK + 1)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 3
    assert gets(s3_server) - before == 2


def test_a_copy_is_made_anew_when_the_file_has_changed_or_a_process_was_killed(bucket: StorePath) -> None:
    path = bucket / "schema.yaml"
    path.write_text("1")
    first = local_copy(path)
    assert (first.read_text(), first.is_relative_to(default_cache())) == ("1", True)
    first.unlink()
    (first.parent / ".1.part").write_text("half")  # of a process that was killed
    assert local_copy(bucket / "schema.yaml") == first
    path.write_text("22")
    assert local_copy(bucket / "schema.yaml").read_text() == "22"


def test_a_process_takes_over_from_one_that_has_let_go_without_a_copy(bucket: StorePath) -> None:
    (bucket / "a").write_text("1")
    copy = local_copy(bucket / "a")
    copy.unlink()
    reader, writer = os.pipe()
    if not (child := os.fork()):
        held = FileLock(copy.parent / ".lock")
        os.write(writer, b"1")
        time.sleep(0.2)
        os._exit(not held.is_at(copy.parent / ".lock"))
    os.read(reader, 1)
    with pytest.raises(HeldError):
        FileLock(copy.parent / ".lock")
    assert local_copy(bucket / "a").read_text() == "1"
    assert os.waitpid(child, 0)[1] == 0


def test_a_folder_of_this_machine_is_its_own_copy_and_one_that_is_full_is_named(
    bucket: StorePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert local_copy(tmp_path / "a") == tmp_path / "a"
    (bucket / "a").write_text("1")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match=rf"^{bucket}/a: cannot be copied to .*: Not a directory; .* --data.cache$"):
        local_copy(bucket / "a")
