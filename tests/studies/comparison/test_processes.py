"""Processes of `ccn`: forked where there is no GPU, and like any other for whoever waits for them."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lightning_ccn.studies.comparison import processes
from lightning_ccn.studies.comparison.processes import environment, start_ccn

WORLD = ["data", "world", "world", "--users", "300", "--items", "200"]  # takes a second or more


@pytest.fixture(params=["forked", "started"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Forked, and started as on a machine with a GPU; in a folder to write to."""
    monkeypatch.chdir(tmp_path)
    if request.param == "started":
        monkeypatch.setattr(processes, "visible_gpus", lambda: ["none"])
    return str(request.param)


@pytest.mark.usefixtures("way")
def test_the_exit_code_and_the_words_of_a_command_that_fails_are_told(tmp_path: Path) -> None:
    process = start_ccn(["data", "cut", "nowhere", "out", "--long_length", "5"], tmp_path / "log", environment(0))
    assert process.wait() == 2 and process.wait() == 2
    assert "ccn: error: nowhere: no such folder" in (tmp_path / "log").read_text()


@pytest.mark.usefixtures("way")
def test_a_process_keeps_the_lock_that_it_was_given_until_it_ends(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock, (tmp_path / "lock").open("w") as other:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start_ccn(WORLD, tmp_path / "log", environment(0), lock.fileno())
        lock.close()
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process.terminate()
        assert process.wait() == -signal.SIGTERM
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.usefixtures("way")
def test_waiting_ends_after_the_given_seconds(tmp_path: Path) -> None:
    process = start_ccn(WORLD, tmp_path / "log", environment(0))
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.terminate()
    process.wait()


def test_variables_of_this_process_are_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    mine = dict(os.environ)
    start_ccn(["--version"], tmp_path / "log", environment(0)).wait()
    assert dict(os.environ) == mine
    monkeypatch.delenv("OMP_NUM_THREADS")
    start_ccn(["--version"], tmp_path / "log", environment(0)).wait()
    assert "OMP_NUM_THREADS" not in os.environ


def test_processes_that_end_at_the_same_time_have_all_succeeded(tmp_path: Path) -> None:
    def run(number: int) -> int:
        return start_ccn(["--version"], tmp_path / f"log{number}", environment(0)).wait()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(48))) == [0] * 48
