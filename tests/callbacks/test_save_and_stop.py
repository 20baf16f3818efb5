"""A run that is asked to stop does so at a boundary of all ranks, and goes on as if nothing had been."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist

from lightning_ccn.callbacks.save_and_stop import SaveAndStop
from lightning_ccn.cli import CTRL_C, STOPPED
from lightning_ccn.sharding import TorchRecStrategy, read_manifest
from lightning_ccn.sharding.checkpoint import load_tensors
from tests.callbacks.interrupted_fit import CRASHED, agreements, fit
from tests.sharding.dlrm import Loader
from tests.sharding.ranks import on_ranks
from tests.sharding.runs import make_model, make_trainer

RANKS = 2


def weights(run: Path) -> dict[str, torch.Tensor]:
    path = run / "checkpoints" / "last.ckpt"
    found = {
        key: torch.empty(about["shape"], dtype=getattr(torch, about["dtype"]))
        for key, about in read_manifest(path)["tensors"].items()
        if not key.startswith("random.")  # making a loader's iterator draws a number, which nothing here uses
    }
    load_tensors(path, found, None)
    return found


def logged(run: Path) -> list[dict[str, str]]:
    """Lines of metrics.csv, without the empty cells."""
    lines = csv.DictReader((run / "metrics.csv").open())
    timing = "per_second"
    return [{k: v for k, v in line.items() if v and timing not in k} for line in lines]


def steps(runs: Path, run_id: str) -> list[tuple[int, int, list[int]]]:
    """(step, rank, pages) of every step that was trained, in order; once for each time it was."""
    lines = [json.loads(line) for line in (runs / f"{run_id}.jsonl").read_text().splitlines()]
    return sorted((line["step"], line["rank"], line["pages"]) for line in lines)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    """A folder of runs, of which `whole` was never asked to stop."""
    folder = tmp_path_factory.mktemp("runs")
    assert on_ranks(RANKS, fit, folder=dataset, runs=folder, run_id="whole") == [0, 0]
    return folder


MOMENTS = [  # a hook's call, and the rank that is asked in it
    ("on_train_start", 1, 0),
    ("on_train_batch_end", 3, 1),  # agreed at the end of step 4, of which a line is logged: stops after step 5
    ("on_train_batch_end", 5, 0),  # agreed at the end of step 6, where a validation follows: stops in it
    ("on_validation_batch_end", 3, 1),  # the last batch of a validation: stops after step 7
    ("on_validation_batch_end", 10, 0),  # in the validation that follows the last step
    ("on_test_batch_start", 1, 1),
]
SELDOM = MOMENTS[2:5]  # tested with the slow tests


@pytest.mark.parametrize(
    ("hook", "call", "rank"),
    [pytest.param(*moment, marks=[pytest.mark.slow] if moment in SELDOM else []) for moment in MOMENTS],
    ids=[f"{hook}-{call}" for hook, call, _ in MOMENTS],
)
def test_a_stopped_run_goes_on_as_if_nothing_had_been(
    runs: Path, dataset: Path, hook: str, call: int, rank: int
) -> None:
    run_id = f"{hook}-{call}"
    ask = [f"--trainer.callbacks.{name}={value}" for name, value in (("hook", hook), ("call", call), ("rank", rank))]
    stopping = ("--trainer.callbacks+=tests.callbacks.interrupted_fit.Ask", *ask)
    stopped = on_ranks(RANKS, fit, folder=dataset, runs=runs, run_id=run_id, options=stopping)
    assert stopped == [STOPPED] * RANKS
    assert on_ranks(RANKS, fit, folder=dataset, runs=runs, run_id=run_id) == [0, 0]
    assert steps(runs, run_id) == steps(runs, "whole")  # no step twice, none left out
    whole, found = weights(runs / "test" / "whole"), weights(runs / "test" / run_id)
    assert [key for key in whole if not torch.equal(whole[key], found[key])] == []
    assert logged(runs / "test" / run_id) == logged(runs / "test" / "whole")


@pytest.mark.slow
def test_the_ranks_agree_about_every_half_second_and_not_at_each_step(dataset: Path, tmp_path: Path) -> None:
    run = {"folder": dataset, "runs": tmp_path}
    each_step = on_ranks(RANKS, agreements, run_id="each", agree_every=0.0, **run)
    seldom = on_ranks(RANKS, agreements, run_id="seldom", agree_every=1000.0, **run)
    assert min(each_step)[0] >= 24 + 4 * 3  # steps and batches of validations
    assert max(seldom)[0] <= 24  # at the first steps of each stage
    assert seldom[0] == seldom[1]
    assert seldom[0][1] == 0  # Lightning would ask at each step, and hide the error when a rank was lost
    assert [saves for _, _, saves in each_step] == [1] * RANKS  # at the end of training: no other save was due
    assert steps(tmp_path, "seldom") == steps(tmp_path, "each")


def test_a_rank_that_is_asked_between_two_agreements_stops_all_at_the_next(
    runs: Path, dataset: Path, tmp_path: Path
) -> None:
    asked = {"hook": "on_train_batch_end", "call": 3, "rank": 1}
    ask = [f"--trainer.callbacks.{name}={value}" for name, value in asked.items()]
    stopping = ("--trainer.callbacks+=tests.callbacks.interrupted_fit.Ask", *ask)
    run = {"folder": dataset, "runs": tmp_path, "run_id": "run"}
    assert on_ranks(RANKS, fit, **run, options=stopping, agree_every=0.2) == [STOPPED] * RANKS
    assert on_ranks(RANKS, fit, **run, agree_every=0.2) == [0] * RANKS
    assert steps(tmp_path, "run") == steps(runs, "whole")


def test_sigterm_of_one_rank_stops_all_after_the_same_step(runs: Path, dataset: Path, tmp_path: Path) -> None:
    asked = {"hook": "on_train_batch_start", "call": 3, "rank": 1, "by_sigterm": True}
    ask = [f"--trainer.callbacks.{name}={value}" for name, value in asked.items()]
    sent = ("--trainer.callbacks+=tests.callbacks.interrupted_fit.Ask", *ask)
    run = {"folder": dataset, "runs": tmp_path, "run_id": "run"}
    assert on_ranks(RANKS, fit, **run, options=sent) == [STOPPED] * RANKS
    assert on_ranks(RANKS, fit, **run) == [0] * RANKS
    assert steps(tmp_path, "run") == steps(runs, "whole")


@pytest.mark.parametrize("rank", [0, 1])
def test_ctrl_c_on_one_rank_is_ctrl_c_on_all(rank: int, dataset: Path, tmp_path: Path) -> None:
    asked = {"hook": "on_train_batch_end", "call": 2, "rank": rank, "by_ctrl_c": True}
    ask = [f"--trainer.callbacks.{name}={value}" for name, value in asked.items()]
    pressed = ("--trainer.callbacks+=tests.callbacks.interrupted_fit.Ask", *ask)
    assert on_ranks(RANKS, fit, folder=dataset, runs=tmp_path, run_id="run", options=pressed) == [CTRL_C] * RANKS
    assert read_manifest(tmp_path / "test" / "run" / "checkpoints" / "last.ckpt")["global_step"] == 3


def test_a_crash_loses_no_more_than_the_interval_between_saves(dataset: Path, tmp_path: Path) -> None:
    crash = ("--trainer.callbacks.crash_at", "3", "--save_every", "0")
    assert on_ranks(RANKS, fit, folder=dataset, runs=tmp_path, run_id="run", options=crash) == [CRASHED] * RANKS
    assert read_manifest(tmp_path / "test" / "run" / "checkpoints" / "last.ckpt")["global_step"] == 3


def timeouts_of_the_groups(folder: Path, seconds: float) -> list[float]:
    """Seconds after which an operation fails: of saves, and of the agreement to save or stop."""
    strategy, stopping = TorchRecStrategy(timeout_seconds=seconds), SaveAndStop(folder, save_every=1e9)
    with mock.patch.object(dist, "new_group", wraps=dist.new_group) as made:
        make_trainer(folder, strategy, callbacks=[stopping]).fit(make_model(), Loader(1))
    return [call.kwargs["timeout"].total_seconds() for call in made.call_args_list if call.kwargs["backend"] == "gloo"]


def test_the_ranks_wait_for_one_another_no_longer_than_the_strategys_timeout(tmp_path: Path) -> None:
    assert on_ranks(1, timeouts_of_the_groups, folder=tmp_path, seconds=77.0) == [[77.0, 77.0]]
