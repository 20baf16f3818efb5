"""No rank waits for one that has failed, each says for whom it waits, and the exit code is kept."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy

from lightning_ccn.sharding import TorchRecStrategy
from lightning_ccn.sharding.process_group import loss_of_rank
from tests.processes import clean_environment
from tests.sharding.dlrm import Loader
from tests.sharding.lone_rank import CASES, CODE
from tests.sharding.ranks import on_ranks
from tests.sharding.runs import make_model, make_trainer

NODE = platform.node()
Rank = tuple[int | None, str, str]  # exit code, output, errors


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Rank]]:
    """How the two ranks of each case of `lone_rank` ended."""
    folder = tmp_path_factory.mktemp("pairs")
    environment = clean_environment(PYTHONPATH=os.pathsep.join(sys.path), OMP_NUM_THREADS="1")
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("lone_rank.py")), str(folder)]
    subprocess.run(command, env=environment, check=True, timeout=120)
    codes = json.loads((folder / "codes.json").read_text())
    return {
        case: [
            (codes[case][rank], *(_said(folder / f"{case}{rank}.{stream}") for stream in ("out", "err")))
            for rank in range(2)
        ]
        for case in CASES
    }


def _said(path: Path) -> str:
    """What a rank wrote, without what torch says of a slow network, which a busy machine looks like."""
    lines = path.read_text().splitlines(keepends=True)
    return "".join(line for line in lines if "hostname of the client socket" not in line)


@pytest.mark.parametrize("case", ["fails", "abort_hangs"])
def test_a_rank_that_fails_alone_ends_at_once_and_the_others_after_it_in_words(
    case: str, pairs: dict[str, list[Rank]]
) -> None:
    (code, _, said), (code_of_failed, _, _) = pairs[case]
    assert code_of_failed == CODE
    assert code == 1
    assert said.endswith(  # on a busy machine torch can log before it that the store was slow
        f"error: rank 0: another rank ended: rank 1 on {NODE}: ValueError: a bad page; so this one ends too\n"
    )


def test_the_end_of_the_rank_with_the_store_ends_the_others(pairs: dict[str, list[Rank]]) -> None:
    (killed, _, _), (code, _, said) = pairs["store_fails"]
    assert killed == -signal.SIGKILL
    assert code == 1
    assert said.endswith(  # torch can log before it that the store is gone
        "error: rank 1: another rank ended: rank 0, which keeps the store of all ranks, does not answer; so this one "
        "ends too\n"
    )


def test_ranks_that_fail_together_end_by_themselves(pairs: dict[str, list[Rank]]) -> None:
    assert [code for code, _, _ in pairs["all_fail"]] == [CODE] * 2
    assert "another rank ended" not in "".join(said for _, _, said in pairs["all_fail"])


def test_a_rank_says_for_whom_it_waits_before_nccl_ends_it(pairs: dict[str, list[Rank]]) -> None:
    (_, _, said), (_, _, said_by_late) = pairs["waits"]
    assert "error: rank 0: has waited " in said
    assert f" s for rank 1 on {NODE} (lives, 1 operation(s) behind); after 3 s (trainer.strategy.timeout_" in said
    assert "has waited" not in said_by_late


def test_a_rank_may_leave_long_after_the_one_with_the_store(pairs: dict[str, list[Rank]]) -> None:
    assert [code for code, _, _ in pairs["parts_early"]] == [0, 0]
    assert "another rank ended" not in pairs["parts_early"][1][2]


def test_ranks_that_leave_at_different_times_leave_without_noise(pairs: dict[str, list[Rank]]) -> None:
    assert pairs["parts"] == [(0, "", "")] * 2


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("late", "another rank ended or hangs: this one waited 8 s (trainer.strategy.timeout_seconds) for rank 1 on "
                 f"{NODE} (lives, 1 operation(s) behind)\n"),
        ("stopped", "another rank ended or hangs: this one waited 8 s (trainer.strategy.timeout_seconds) for rank 1 on "
                    f"{NODE} (gives no sign of life)\n"),
        ("dies", "another rank ended, and its log says why\n"),
    ],
)  # fmt: skip
def test_a_collective_that_a_rank_does_not_join_names_the_rank(
    case: str, words: str, pairs: dict[str, list[Rank]]
) -> None:
    assert pairs[case][0][1] == words


class FailsOnRank1(Callback):
    """Bad data, say."""

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_rank == 1 and trainer.global_step == 1:
            raise ValueError("bad data")


def fit_that_fails(folder: Path) -> str | None:
    """What this rank says of its error."""
    trainer = make_trainer(folder, TorchRecStrategy(timeout_seconds=4), callbacks=[FailsOnRank1()])
    try:
        trainer.fit(make_model(), Loader(4))
    except (RuntimeError, ValueError) as error:
        return loss_of_rank(error)
    return "no error"


def test_the_error_of_one_rank_under_a_trainer_is_named_by_the_other(tmp_path: Path) -> None:
    said, said_by_failed = on_ranks(2, fit_that_fails, folder=tmp_path)
    assert said == f"another rank ended: rank 1 on {NODE}: ValueError: bad data"
    assert said_by_failed is None


@pytest.fixture
def no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that is no rank; an earlier test of this process may have joined a group."""
    monkeypatch.setattr("lightning_ccn.sharding.process_group._member", None)


@pytest.mark.usefixtures("no_group")
@pytest.mark.parametrize(
    "words",
    [
        "NCCL communicator was aborted on rank 1.",
        "NCCL error in: NCCLUtils.cpp:94, remote process exited or there was a network error\nncclRemoteError: A call",
        "[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=8, OpType=ALLREDUCE) ran for 600029 ms",
        "NCCL error detected on ProcessGroup (name=0, desc=default_pg, error=ErrorType.REMOTE_ERROR). Aborting to "
        "prevent silent data corruption from collective failure.",  # of TorchRec
        "[3] is setting up NCCL communicator and retrieving ncclUniqueId from [0] via c10d key-value store by key '0', "
        "but store->get('0') got error: wait timeout after 600000ms. This may indicate a possible application crash on "
        "rank 0 or a network set up issue.",
    ],
)
def test_the_errors_of_nccl_say_that_another_rank_ended(words: str) -> None:
    for kind in (dist.DistBackendError, RuntimeError):
        assert loss_of_rank(kind(words)) == "another rank ended, and its log says why"


@pytest.mark.usefixtures("no_group")
def test_errors_of_the_store_say_that_another_rank_ended_and_others_do_not() -> None:
    for error in (dist.DistNetworkError("recvValue failed"), dist.DistStoreError("wait timeout after 3 ms")):
        assert loss_of_rank(error) == "another rank ended, and its log says why"
    for other in (
        dist.DistBackendError("ncclInvalidUsage: Duplicate GPU detected"),
        RuntimeError("x"),
        OSError("Broken pipe"),
    ):
        assert loss_of_rank(other) is None


def test_forked_workers_are_safe_before_the_group_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str | None] = []

    def setup_environment(strategy: DDPStrategy) -> None:
        found.append(os.environ.get("RDMAV_FORK_SAFE"))
        raise InterruptedError

    monkeypatch.setattr(DDPStrategy, "setup_environment", setup_environment)
    for value, expected in ((None, "1"), ("0", "0")):
        monkeypatch.delenv("RDMAV_FORK_SAFE", raising=False)
        if value is not None:
            monkeypatch.setenv("RDMAV_FORK_SAFE", value)
        with pytest.raises(InterruptedError):
            TorchRecStrategy().setup_environment()
        assert found.pop() == expected
