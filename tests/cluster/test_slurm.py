"""`make train-multinode` on a real SLURM: what ends a job in real life does not end a run."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lightning_ccn.sharding import newest_whole, read_manifest
from tests.cluster.job_story import table, timeline
from tests.cluster.slurm_cluster import PAGES, STEPS, Cluster, Run, hold, until
from tests.loggers.wandb_file import read as read_wandb
from tests.training.recorder import trained

pytestmark = pytest.mark.slurm


def metrics(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.folder / "metrics.json").read_text())
    return {name: value for name, value in found.items() if "second" not in name}


def curve(run: Run) -> dict[int, float]:
    """Loss by step, in metrics.csv."""
    with (run.folder / "metrics.csv").open(newline="") as file:
        return {int(line["step"]): float(line["train_loss"]) for line in csv.DictReader(file) if line["train_loss"]}


def curve_in_wandb(run: Run) -> dict[int, float]:
    """Loss by step, in the files of the W&B client, of which later ones come last."""
    return {step: loss for life in read_wandb(run.folder) for step, loss in life.column("train_loss")}


def assert_whole(run: Run) -> None:
    """The run is done; it trained on every page of both epochs once."""
    run.until_state("COMPLETED")
    assert run.steps() == list(range(STEPS)), run.everything()
    assert set(run.times_trained().values()) == {2} and len(run.times_trained()) == PAGES


@pytest.fixture(autouse=True)
def nothing_is_left(cluster: Cluster) -> Iterator[None]:
    """A test that failed leaves no job to the next one."""
    yield
    cluster.ask("scancel", "--me")


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
        assert record["state"] == "is connected"
        assert record["threads"] == "1"
        assert record["cores"] and record["versions"]["torch"]
        log = (undisturbed.job / f"rank-{rank}.log").read_text()
        assert f"node n{rank + 1}, rank {rank} of 2, starts" in log
    assert json.loads((undisturbed.job / "code" / "git.json").read_text())["commit"]
    assert metrics(undisturbed)["global_step"] == STEPS


def test_a_run_lives_through_time_limit_requeue_dead_rank_and_dead_node(
    cluster: Cluster, dataset: Path, desk: Path, undisturbed: Run
) -> None:
    hold(desk, 3, 8, 13, 18)
    # (a) the signal comes a minute before the time limit, or up to half a minute earlier: SLURM looks no oftener
    run = cluster.submit(desk, dataset, "SBATCH=--signal=B:USR1@60", options="--wandb offline")
    run.until_held(3)
    run.limit_to(minutes=2)
    run.until_log_has("asked to stop")
    run.note("(a) USR1 before the time limit")
    run.limit_to(minutes=600)  # or each start would get the signal anew
    run.let_go(3)
    run.until_log_has("back into the queue")
    # (b) without notice the ranks get SIGTERM, and KillWait seconds
    run.until_held(8)
    run.note("(b) scontrol requeue")
    cluster.ask("scontrol", "requeue", run.id)
    run.let_go(8)
    # (c) started again on the same nodes; the W&B client writes its files once a second
    run.until_held(13)
    until(lambda: 11 in curve_in_wandb(run), "W&B's file to have the last line")
    run.note("(c) SIGKILL of rank 1")
    run.signal("KILL", rank=1)
    run.let_go(13)
    run.until_log_has("failed: srun ended with")
    # (d) SLURM notices, and takes another node
    run.until_held(18)
    until(lambda: 17 in curve_in_wandb(run), "W&B's file to have the last line")
    run.note("(d) n2 vanishes")
    assert cluster.do("kill", "n2").returncode == 0
    run.let_go(18)
    run.until_state("COMPLETED")
    assert cluster.do("revive", "n2").returncode == 0

    # after a and b no step was trained twice; after c and d those since the last save, of which the ranks, when they
    # start anew, agree after their first steps, and then twice a second
    again = {step for step in range(STEPS) if run.steps().count(step) > 1}
    assert again <= {*range(9, 14), *range(14, 19)}, run.everything()
    pages = trained(desk / "pages.jsonl", range(STEPS))
    assert sorted(pages) == sorted(trained(undisturbed.desk / "pages.jsonl", range(STEPS)))
    assert metrics(run) == metrics(undisturbed)
    # one curve, in metrics.csv and in one W&B run
    assert curve(run) == curve(undisturbed)
    assert curve_in_wandb(run) == pytest.approx(curve(undisturbed), abs=1e-6)
    lives = read_wandb(run.folder)
    wandb_id = (run.folder / "wandb_id").read_text()
    assert len(lives) >= 5 and {life.path.name for life in lives} == {f"run-{wandb_id}.wandb"}
    # the client writes once a second: a life that is killed before has an empty file
    assert {life.run.run_id for life in lives if life.history} == {wandb_id}

    # `make test-slurm ARGS="-k lives_through -rP"` shows this
    lines = timeline(run)
    print("\n".join(lines), "", table(lines), sep="\n")
    print(
        f"\n{len(pages)} pages trained, steps {sorted(again)} twice; undisturbed: {undisturbed.times_trained().total()}"
    )
    for life in lives:
        steps = [step for step, _ in life.column("train_loss")]
        print(f"W&B run {life.run.run_id}, {life.path.parent.name}: steps {steps}")


def test_signals_before_training_and_in_the_middle_of_a_save_put_the_run_back(
    cluster: Cluster, dataset: Path, desk: Path
) -> None:
    hold(desk, "save")
    run = cluster.submit(desk, dataset)
    until((run.job / "ranks" / "0.json").exists, "rank 0 to be there")
    run.signal()
    run.until_log_has("back into the queue")
    assert not (desk / "pages.jsonl").exists()
    run.until_held("save")
    run.signal()
    run.let_go("save")
    run.until_log_has("back into the queue", times=2)
    assert_whole(run)


def test_a_cancelled_run_goes_on_with_one_node_and_with_three(cluster: Cluster, dataset: Path, desk: Path) -> None:
    hold(desk, 5, 11)
    run = cluster.submit(desk, dataset)
    run.until_held(5)
    again = cluster.make("train-multinode", "NODES=1", "GPUS=0", f"RESUME={run.folder}")
    assert again.returncode != 0
    assert f"job {run.id} is still running; stop it first: scancel {run.id}" in again.stderr
    cluster.ask("scancel", run.id)
    run.let_go(5)
    run.until_state("CANCELLED")
    newest = newest_whole(run.folder / "checkpoints")
    assert newest is not None
    assert read_manifest(newest)["global_step"] in (6, 7)

    one = cluster.submit(desk, dataset, f"RESUME={run.folder}", nodes=1)
    assert one.folder == run.folder
    one.until_held(11, ranks=1)
    cluster.ask("scancel", one.id)
    one.let_go(11)
    one.until_state("CANCELLED")

    three = cluster.submit(desk, dataset, f"RESUME={run.folder}", nodes=3)
    assert_whole(three)
    assert metrics(three)["world_size"] == 3


def test_two_jobs_of_an_experiment_at_once_and_only_the_poisoned_one_fails(
    cluster: Cluster, dataset: Path, tmp_path: Path
) -> None:
    poisoned, healthy, runs = tmp_path / "poisoned", tmp_path / "healthy", tmp_path / "runs"
    hold(poisoned, 3)
    hold(healthy, 8)
    (poisoned / "hold" / "poison").write_text("4")
    bad = cluster.submit(poisoned, dataset, nodes=1, runs=runs)
    bad.until_held(3, ranks=1)
    good = cluster.submit(healthy, dataset, nodes=1, runs=runs)
    assert bad.folder.parent == good.folder.parent and bad.folder != good.folder
    good.until_held(8, ranks=1)
    bad.let_go(3)  # its starts and saves are beside those of the other from here on
    good.signal()
    good.let_go(8)
    good.until_log_has("back into the queue")
    assert_whole(good)

    until(lambda: bad.state in ("FAILED", "COMPLETED"), "the job to give up")
    assert bad.state == "FAILED"
    assert bad.log.count("fit starts on") == 5  # the first, which saved step 3, and RESTARTS + 1 that saved nothing
    assert "given up after 4 starts in a row without a new checkpoint" in bad.log
    trace = (bad.job / "rank-0.log").read_text()
    assert "a poisoned batch" in trace
    assert (
        f"{bad.job}/code/lightning_ccn/training/trainer_cli.py" in trace
    )  # the job's own copy of the code, not the checkout


def test_a_checkpoint_is_fine_tuned_and_predicts(cluster: Cluster, dataset: Path, desk: Path, undisturbed: Run) -> None:
    of_run = [f"CKPT={undisturbed.folder / 'checkpoints' / 'last.ckpt'}", "GPUS=0", f"DATA={dataset}"]
    alone = f"--trainer.callbacks null --runs {desk}/runs"
    tuned = cluster.submitted(
        cluster.make("finetune-multinode", *of_run, "NODES=1", f"ARGS={alone} --experiment tuned --data.batch_pages 8"),
        desk,
    )
    scores = cluster.submitted(
        cluster.make("predict-multinode", *of_run, "NODES=2", f"ARGS={alone} --experiment scores"), desk
    )
    tuned.until_state("COMPLETED")
    assert metrics(tuned)["global_step"] == STEPS // 2
    scores.until_state("COMPLETED")
    rows = pq.read_table(scores.folder / "predictions").num_rows
    assert rows == metrics(undisturbed)["items"]


def test_a_comparison_is_an_array_and_a_report(cluster: Cluster, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    few = "--quick --systems sim,tan --data.batch_pages 8 --data.workers 0 --model.system.dim 8"
    done = cluster.make("compare-multinode", "TASKS=2", "GPUS=0", f"DATA={dataset}", f"OUT={out}", f"ARGS={few}")
    assert done.returncode == 0, done.stdout + done.stderr
    submitted = re.search(r"submitted job (\d+), an array of 2, and job (\d+), the report", done.stdout)
    assert submitted is not None, done.stdout
    array, report = submitted.groups()
    log = out / "jobs" / array / "task-0.log"
    until(lambda: log.exists() and "starts on" in log.read_text(), "the first task to start")
    cluster.ask("scancel", "--batch", "--signal=USR1", f"{array}_0")  # as before its time limit
    until(lambda: cluster.state(report) & {"COMPLETED", "FAILED", "CANCELLED"}, "the report")
    logs = {path.stem: path.read_text() for path in (out / "jobs" / array).glob("*.log")}
    assert cluster.state(array) == cluster.state(report) == {"COMPLETED"}, logs
    assert logs["task-0"].count("starts on") == 2 and "back into the queue" in logs["task-0"]
    assert {system["name"] for system in json.loads((out / "compare.json").read_text())["systems"]} == {"sim", "tan"}
    started = [log.count(": started") for log in (logs["task-0"], logs["task-1"], logs["report"])]
    assert sum(started) == 2 and started[2] == 0  # every cell was trained once, before the report
