"""`make train-multinode` on a real SLURM: what ends a job in real life does not end a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_ccn.sharding import newest_whole, read_manifest
from tests.slurm.cluster import PAGES, STEPS, Cluster, Run, until

pytestmark = pytest.mark.slurm


def metrics(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.folder / "metrics.json").read_text())
    return {name: value for name, value in found.items() if "second" not in name}


def assert_whole(run: Run) -> None:
    """The run is done; it trained on every page of both epochs once."""
    run.until_state("COMPLETED")
    assert run.steps() == list(range(STEPS)), run.everything()
    assert set(run.times_trained().values()) == {2} and len(run.times_trained()) == PAGES


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on two nodes that nothing happened to."""
    run = cluster.submit(tmp_path_factory.mktemp("undisturbed"), dataset)
    assert_whole(run)
    return run


def test_a_run_leaves_its_records(undisturbed: Run) -> None:
    assert {"code", "config.yaml", "job.log", "rank-0.log", "rank-1.log"} <= {p.name for p in undisturbed.job.iterdir()}
    for rank in (0, 1):
        record = json.loads((undisturbed.job / "ranks" / f"{rank}.json").read_text())
        assert record["state"] == "is there"
        assert record["threads"] == "1"
        assert record["cores"] and record["versions"]["torch"]
    assert json.loads((undisturbed.job / "code" / "git.json").read_text())["commit"]
    assert metrics(undisturbed)["global_step"] == STEPS


def test_a_run_lives_through_time_limit_requeue_dead_rank_and_dead_node(
    cluster: Cluster, dataset: Path, runs: Path, undisturbed: Run
) -> None:
    for step in (3, 8, 13, 18):
        (runs / "hold").mkdir(parents=True, exist_ok=True)
        (runs / "hold" / str(step)).touch()
    # (a) the signal before the time limit: a minute before two are over, or up to 30 s earlier, SLURM looks no oftener.
    # Each start would get it anew, so the limit goes then.
    run = cluster.submit(runs, dataset, "TIME=2", "SBATCH=--signal=B:USR1@60", options="--wandb offline")
    run.until_held(3)
    run.until_log_has("asked to stop")
    cluster.ask("scontrol", "update", f"JobId={run.id}", "TimeLimit=60")
    run.let_go(3)
    run.until_log_has("back into the queue")
    # (b) back into the queue without notice: the ranks get SIGTERM, and KillWait seconds
    run.until_held(8)
    cluster.ask("scontrol", "requeue", run.id)
    run.let_go(8)
    # (c) SIGKILL of one rank: started again on the same nodes
    run.until_held(13)
    run.signal("KILL", rank=1)
    run.until_log_has("failed: srun ended with")
    run.let_go(13)
    # (d) the second node vanishes: SLURM notices, and takes another
    run.until_held(18)
    assert cluster.do("kill", "n2").returncode == 0
    run.let_go(18)
    run.until_state("COMPLETED")
    assert cluster.do("revive", "n2").returncode == 0
    # after a and b no step was trained twice; after c and d at most the steps since the last save, here one
    assert sorted(set(run.steps())) == list(range(STEPS))
    again = [step for step in set(run.steps()) if run.steps().count(step) > 1]
    assert set(again) <= {12, 13, 17, 18}, run.everything()
    assert metrics(run) == metrics(undisturbed)
    parts = [path.name for path in (run.folder / "wandb").glob("offline-run-*")]
    assert len(parts) > 3 and len({name.rpartition("-")[2] for name in parts}) == 1  # one W&B run
    # `make test-slurm ARGS="-k lives_through -rP"` shows this; docs/slurm.md has one
    print(f"{run.timeline()}\n{run.times_trained().total()} pages trained")


def test_a_signal_before_training_has_started_puts_the_run_back(cluster: Cluster, dataset: Path, runs: Path) -> None:
    run = cluster.submit(runs, dataset)
    until((run.job / "ranks" / "0.json").exists, "rank 0 to be there")
    run.signal()
    run.until_log_has("back into the queue")
    assert_whole(run)


def test_a_signal_in_the_middle_of_a_save_waits_for_its_end(cluster: Cluster, dataset: Path, runs: Path) -> None:
    (runs / "hold").mkdir(parents=True)
    (runs / "hold" / "save").touch()
    run = cluster.submit(runs, dataset)
    run.until_held("save")
    run.signal()
    run.let_go("save")
    run.until_log_has("back into the queue")
    assert_whole(run)


def test_a_cancelled_run_goes_on_with_one_node_and_with_three(cluster: Cluster, dataset: Path, runs: Path) -> None:
    (runs / "hold").mkdir(parents=True)
    for step in (5, 11):
        (runs / "hold" / str(step)).touch()
    run = cluster.submit(runs, dataset)
    run.until_held(5)
    again = cluster.make("train-multinode", "NODES=1", "GPUS=0", f"RESUME={run.folder}")
    assert again.returncode != 0
    assert f"job {run.id} is still at it; stop it first: scancel {run.id}" in again.stderr
    cluster.ask("scancel", run.id)
    run.let_go(5)
    run.until_state("CANCELLED")
    newest = newest_whole(run.folder / "checkpoints")
    assert newest is not None
    assert read_manifest(newest)["global_step"] in (6, 7)

    one = cluster.submit(runs, dataset, f"RESUME={run.folder}", nodes=1)
    assert one.folder == run.folder
    one.until_held(11, ranks=1)
    cluster.ask("scancel", one.id)
    one.let_go(11)
    one.until_state("CANCELLED")

    three = cluster.submit(runs, dataset, f"RESUME={run.folder}", nodes=3)
    assert_whole(three)
    assert metrics(three)["world_size"] == 3


def test_two_jobs_of_an_experiment_have_their_own_folders(cluster: Cluster, dataset: Path, tmp_path: Path) -> None:
    first, second = (cluster.submit(tmp_path / name / "runs", dataset, nodes=1) for name in ("one", "two"))
    assert first.folder.name != second.folder.name
    for run in (first, second):
        assert_whole(run)


def test_a_poisoned_batch_does_not_start_for_ever(cluster: Cluster, dataset: Path, runs: Path) -> None:
    (runs / "hold").mkdir(parents=True)
    (runs / "hold" / "poison").write_text("4")
    run = cluster.submit(runs, dataset, nodes=1)
    until(lambda: run.state in ("FAILED", "COMPLETED"), "the job to give up")
    assert run.state == "FAILED"
    assert run.log.count("fit starts on") == 5  # the first, which saved step 4, and RESTARTS + 1 that saved nothing
    assert "given up after 4 starts in a row without a new checkpoint" in run.log
    trace = (run.job / "rank-0.log").read_text()
    assert "a poisoned batch" in trace
    assert f"{run.job}/code/lightning_ccn/training.py" in trace  # the job's own copy of the code, not the checkout
