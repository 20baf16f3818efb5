"""`ccn score` is ended, or cannot write: what is said, what stays, and what is left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.cli import CTRL_C, USER_ERROR, main
from lightning_ccn.serving.score_files import score_files

INTERRUPTED = "ccn: interrupted; the same command scores the rest\n"


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    table = pa.table({"items": [[1001, 1002]] * 4})
    pq.write_table(table, tmp_path / "requests.parquet", row_group_size=2)
    return tmp_path / "requests.parquet"


def test_sigterm_ends_it_like_ctrl_c(
    package: Path,
    requests: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    replace = os.replace

    def and_terminate(source: Path, target: Path) -> None:
        replace(source, target)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(os, "replace", and_terminate)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # of a command that does not handle it
    try:
        assert main(["score", str(package), str(requests), str(tmp_path / "scores")]) == CTRL_C
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err == INTERRUPTED
    monkeypatch.undo()
    assert score_files(package, requests, tmp_path / "scores").requests == 2  # the first part stayed


def test_a_full_disk_is_said_with_the_folder(
    package: Path,
    requests: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    replace, output = os.replace, tmp_path / "scores"

    def and_fill(source: Path, target: Path) -> None:
        replace(source, target)
        (target.parent / "part-00001.unfinished").symlink_to("/dev/full")  # a write there fails as on a full disk

    monkeypatch.setattr(os, "replace", and_fill)
    assert main(["score", str(package), str(requests), str(output)]) == 1
    said = f"{output}: No space left on device: make room there, or name another folder; --debug shows the traceback"
    assert capsys.readouterr().err == f"ccn: error: {said}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "to", "code", "said"),
    [
        (signal.SIGTERM, "command", CTRL_C, INTERRUPTED),
        (signal.SIGTERM, "all", CTRL_C, INTERRUPTED),
        (signal.SIGINT, "all", CTRL_C, INTERRUPTED),
        (signal.SIGKILL, "one", USER_ERROR, "ccn: error: --processes is 2: one of them was killed, "),
        (signal.SIGKILL, "command", -signal.SIGKILL, ""),
    ],
)
def test_processes_end_quietly_with_the_command(
    number: signal.Signals, to: str, code: int, said: str, package: Path, tmp_path: Path
) -> None:
    table = pa.table({"items": [[1001] * 500] * 40_000})  # far more than is scored before the signal comes
    pq.write_table(table, tmp_path / "requests.parquet", row_group_size=50)
    arguments = ["score", str(package), str(tmp_path / "requests.parquet"), str(tmp_path / "scores"), "--processes=2"]
    with (tmp_path / "log").open("w") as log:
        command = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "lightning_ccn.cli", *arguments],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    finished = tmp_path / ".scores.part" / "part-00001.parquet"
    _wait_until(lambda: finished.exists() or command.poll() is not None)
    if to == "all":
        os.killpg(command.pid, number)
    else:
        os.kill(command.pid if to == "command" else _running(command.pid, "spawn_main")[0], number)
    try:
        assert command.wait(120) == code
        _wait_until(lambda: not _running(command.pid))
    finally:
        for left in _running(command.pid):
            os.kill(left, signal.SIGKILL)
    log_text = (tmp_path / "log").read_text()
    assert log_text.startswith(said)
    assert log_text.count("\n") == (1 if said else 0)
    assert finished.exists()


def _wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


def _running(group: int, word: str = "") -> list[int]:
    """Processes of a group, but for those that have ended; with a word in their commands."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            state, _, of_group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(of_group) == group and state not in "ZX" and word in (folder / "cmdline").read_text():
                found.append(int(folder.name))
        except (OSError, ValueError):
            continue
    return found
