"""What a rank says of a lost one names the file into which NCCL's flight recorder has written."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from lightning_ccn.sharding import process_group
from lightning_ccn.sharding.process_group import DUMPS, Member, loss_of_rank
from lightning_ccn.sharding.rank_store import Sign

FILE = "; NCCL's flight recorder: /job/nccl-rank-3"
LATE = "rank 1 on n2 (gives no sign of life)"


class Told:
    """In place of the ranks' store: rank 1 is one operation behind, and perhaps one has failed."""

    failed: str | None = None

    def ask(self, *_: str) -> list[str | None]:
        return [self.failed]

    def signs(self, _: int) -> dict[int, Sign]:
        return {1: Sign(1, 4, "n2")}


def make_member(monkeypatch: pytest.MonkeyPatch, backend: str) -> Member:
    """Rank 3 of 4 in a process group of this backend, at its fifth operation."""
    for name, value in {"get_rank": 3, "get_world_size": 4, "get_backend": backend}.items():
        monkeypatch.setattr(dist, name, lambda value=value: value)
    monkeypatch.setattr(process_group, "RankStore", Told)
    for name in ("GRACE", "BEAT"):
        monkeypatch.setattr(process_group, name, 0.0)
    monkeypatch.setattr(process_group, "_leave_hard", lambda code: None)
    monkeypatch.setattr(Member, "joined", True)
    member = Member(600.0)
    # of a group, it reads the number of operations alone
    member.group = SimpleNamespace(_get_sequence_number_for_group=lambda: 5)  # type: ignore[assignment]
    monkeypatch.setattr(process_group, "_member", member)
    return member


@pytest.fixture
def member(monkeypatch: pytest.MonkeyPatch) -> Member:
    """As under `slurm/job.sbatch`, with NCCL."""
    monkeypatch.setenv("TORCH_FR_DUMP_TEMP_FILE", "/job/nccl-rank-")
    return make_member(monkeypatch, "nccl")


@pytest.mark.usefixtures("member")
def test_an_error_of_nccl_names_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = dist.DistBackendError("NCCL communicator was aborted on rank 3.")
    assert loss_of_rank(lost) == f"another rank ended, and its log says why{FILE}"
    waited = dist.DistBackendError("[Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=5) ran")
    said = "another rank ended or hangs: this one waited 600 s (trainer.strategy.timeout_seconds) for "
    assert loss_of_rank(waited) == f"{said}{LATE}{FILE}"
    monkeypatch.setattr(Told, "failed", "rank 1 on n2: DataError: bad")
    assert loss_of_rank(lost) == f"another rank ended: rank 1 on n2: DataError: bad{FILE}"


def test_a_rank_that_waits_too_long_names_the_file(member: Member, capsys: pytest.CaptureFixture[str]) -> None:
    member.operations()
    member.since = time.monotonic() - 595
    for _ in range(2):  # it compares two signs of life
        member.warn_of_delay()
    said = capsys.readouterr().err
    assert said.startswith("error: rank 3: has waited ")
    assert said.endswith(f" s for {LATE}; after 600 s (trainer.strategy.timeout_seconds) it is ended{FILE}\n")


def test_a_rank_that_ends_after_another_names_the_file(member: Member, capsys: pytest.CaptureFixture[str]) -> None:
    member.end_after_another("rank 1 on n2")
    assert capsys.readouterr().err == f"error: rank 3: another rank ended: rank 1 on n2; so this one ends too{FILE}\n"


@pytest.mark.parametrize(
    ("variable", "backend", "file"),
    [
        ("TORCH_NCCL_DEBUG_INFO_TEMP_FILE", "nccl", FILE),
        ("TORCH_FR_DUMP_TEMP_FILE", "gloo", ""),
        (None, "nccl", ""),
    ],
    ids=["older name of the variable", "gloo writes none", "not set up"],
)
def test_a_file_is_named_only_where_one_is_written(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, backend: str, file: str
) -> None:
    for name in DUMPS:
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "/job/nccl-rank-")
    assert make_member(monkeypatch, backend).flight_recorder() == file
