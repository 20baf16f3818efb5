"""The folder of a run: its name, its one owner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from lightning_ccn.errors import OptionError
from lightning_ccn.training.run_folder import LOCK, RunLock, holds_a_run, remove_if_empty, run_id
from tests.forks import CONTEXT


def own(run: Path, tell: Connection) -> None:
    """Owns the folder until it is killed or answered, or tells why it cannot."""
    try:
        lock = RunLock(run)
    except OptionError as error:
        tell.send(str(error))
        return
    tell.send("owns")
    with suppress(EOFError):
        tell.recv()
    lock.release()


@contextmanager
def another_process(run: Path) -> Iterator[tuple[BaseProcess, str]]:
    """A process that wants to own the folder, and what it says."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=own, args=(run, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield process, ours.recv()
    finally:
        ours.close()
        process.join()


def test_a_folder_has_one_owner_until_that_process_is_killed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with another_process(run) as (owner, said):
        assert said == "owns"
        with pytest.raises(OptionError, match=rf"run: process {owner.pid} on .* name another run with --run_id"):
            RunLock(run)
        owner.kill()
    RunLock(run)


def test_a_process_that_goes_on_without_the_run_lets_go_of_its_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    lock = RunLock(run)
    with another_process(run) as (_, said):
        assert "is running in this folder" in said
    lock.release()
    with another_process(run) as (_, said):
        assert said == "owns"


def test_a_lock_alone_does_not_keep_a_folder(tmp_path: Path) -> None:
    RunLock(tmp_path / "run")
    assert (tmp_path / "run" / LOCK).exists()
    assert not holds_a_run(tmp_path / "run")
    remove_if_empty(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def allocation(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("CCN_RUN_ID", "WANDB_SWEEP_ID", "SLURM_PROCID", "SLURM_STEP_ID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "777")
    return monkeypatch


def test_each_fit_of_an_allocation_gets_a_folder(allocation: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        names.append(run_id(tmp_path))
        allocation.delenv("CCN_RUN_ID")
    assert names == ["777", "777-2", "777-3"]
    assert run_id(tmp_path, continues=True) == "777"  # a job that was requeued


def test_all_ranks_of_a_job_step_name_the_same_folder(allocation: pytest.MonkeyPatch, tmp_path: Path) -> None:
    allocation.setenv("SLURM_NTASKS", "2")
    for step, name in (("0", "777"), ("1", "777.1")):
        allocation.setenv("SLURM_STEP_ID", step)
        for rank in ("0", "1"):
            allocation.setenv("SLURM_PROCID", rank)
            assert run_id(tmp_path) == name
    assert not list(tmp_path.iterdir())
