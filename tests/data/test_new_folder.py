"""A folder that one process writes, and that appears when it is complete."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lightning_ccn.data.new_folder import NewFolder, naming, part_of
from lightning_ccn.errors import DataError

WRITER = """
import sys
from pathlib import Path
from lightning_ccn.data.new_folder import NewFolder
new = NewFolder(Path(sys.argv[1]), "")
(new.part / "half").touch()
print("writes", flush=True)
if sys.stdin.readline():
    new.finish()
"""


@contextmanager
def written_by_another(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that writes a folder; it finishes after a line on its stdin."""
    command = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writes\n"
        yield writer
        writer.kill()


def test_a_folder_that_another_process_writes_is_refused_until_it_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "scores"
    with written_by_another(folder) as writer:
        with pytest.raises(DataError, match=rf"scores: process {writer.pid} on .* is writing this folder; wait for"):
            NewFolder(folder, "")
        assert (part_of(folder) / "half").exists()
    new = NewFolder(folder, "")
    assert not (new.part / "half").exists()
    (new.part / "whole").touch()
    new.finish()
    assert [path.name for path in tmp_path.rglob("*")] == ["scores", "whole"]


def test_a_file_in_its_place_is_called_a_file(tmp_path: Path) -> None:
    (tmp_path / "scores").touch()
    with pytest.raises(DataError, match="scores: is a file, and a folder is to be made there; name another"):
        NewFolder(tmp_path / "scores", "name another")


def test_a_folder_that_another_process_has_finished_meanwhile_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "scores"
    with written_by_another(folder) as writer:
        writer.communicate("finish\n")
        with pytest.raises(DataError, match="scores: exists and is not empty; name another"):
            NewFolder(folder, "name another")
    assert [path.name for path in tmp_path.rglob("*")] == ["scores", "half"]


def test_a_folder_that_was_filled_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "scores"
    new = NewFolder(folder, "")
    folder.mkdir()
    (folder / "mine").touch()
    with pytest.raises(DataError, match=r"scores: cannot be made: .*; what was written is in .*\.scores\.part"):
        new.finish()
    assert [path.name for path in folder.iterdir()] == ["mine"]
    new.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["scores"]


def test_the_current_folder_is_written_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert part_of(Path(".")) == tmp_path / ".here.part"


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/out: cannot be made: Not a directory; name another folder"):
        NewFolder(tmp_path / "file" / "out", "x")


def test_a_full_disk_is_said_with_the_folder_and_other_errors_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left on device") as full, naming(tmp_path / "out"):
        Path("/dev/full").write_bytes(b"some")
    assert full.value.filename == str(tmp_path / "out")
    with pytest.raises(FileNotFoundError) as missing, naming(tmp_path / "out"):
        (tmp_path / "input").read_bytes()
    assert missing.value.filename == str(tmp_path / "input")
