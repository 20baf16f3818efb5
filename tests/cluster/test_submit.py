"""`make train-multinode` on the login node: what is wrong is said before anything waits in a queue."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_ccn.cli import main
from lightning_ccn.cluster.submit_comparison import with_absolute_paths

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("dry_run.txt")
COMPARE_GOLDEN = Path(__file__).with_name("compare_dry_run.txt")


@pytest.fixture(autouse=True)
def without_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A PATH of what `make` and the checks need, so that a SLURM on this machine makes no difference."""
    bin = tmp_path / "bin"
    bin.mkdir()
    for name in ("bash", "sh", "make", "sed", "git", "test", "nvidia-smi", "grep", "env"):
        for folder in os.environ["PATH"].split(os.pathsep):
            if Path(folder, name).exists() and not (bin / name).exists():
                (bin / name).symlink_to(Path(folder, name))
    (bin / "ccn").write_text(f'#!/bin/sh\nexec "{sys.executable}" -W ignore -m lightning_ccn.cli "$@"\n')
    (bin / "ccn").chmod(0o755)
    (tmp_path / "installed-cpu").touch()
    monkeypatch.setenv("PATH", str(bin))


def make(venv: Path, *words: str, target: str = "train-multinode") -> subprocess.CompletedProcess[str]:
    command = ["make", "--silent", "-C", str(ROOT), f"--old-file={venv}/installed-cpu"]
    command += [target, f"VENV={venv}", "FLAVOUR=cpu", *words]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "SLURM"))}
    return subprocess.run(command, capture_output=True, text=True, env=clean | {"PYTHONPATH": str(ROOT)})


def test_a_dry_run_shows_the_plan_and_the_command(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    words = [f"DATA={make_dataset()}", f"ARGS=--runs {tmp_path}/runs", "NODES=4", "GPUS=8", "DRY_RUN=1"]
    words += ["PARTITION=gpu", "TIME=1-00:00:00", "SBATCH=--qos=low --exclude=n7"]
    done = make(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.replace(str(tmp_path), "/tmp") == GOLDEN.read_text()
    assert list((tmp_path / "runs").glob("*/*")) == []


def test_torchrecs_planner_gets_the_jobs_nodes_and_gpus(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def placement(module: Any, world_size: int, local_size: int, device: Any, *more: Any) -> dict[str, str]:
        asked.append((world_size, local_size, device.type, *more))
        return {}

    monkeypatch.setattr("lightning_ccn.sharding.torchrec_plan.torchrec_placement", placement)
    fit = ["fit", "--data.folder", str(dataset), "--runs", str(tmp_path), "--trainer.strategy.automatic", "torchrec"]
    fit += ["--trainer.strategy.planner_batch", "64"]
    monkeypatch.setattr("lightning_ccn.cluster.submit.read_site", lambda path: {"GPU_MEMORY": "40"})
    assert main(["submit", "--dry_run", "--nodes", "2", "--gpus", "4", *fit]) == 0
    assert asked[0] == (8, 4, "cuda", 64, 40 * 2**30)
    asked.clear()
    assert main(["submit", "--dry_run", "--nodes", "2", "--gpus", "0", *fit]) == 0
    assert asked[0][:3] == (2, 1, "cpu")


@pytest.mark.slow
def test_a_comparison_is_shown_as_an_array_and_a_report_after_it(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    words = [f"DATA={make_dataset()}", f"OUT={tmp_path}/table", "TASKS=4", "PARTITION=gpu", "QUICK=1", "DRY_RUN=1"]
    done = make(tmp_path, *words, "ARGS=--systems sim,ccn", target="compare-multinode")
    assert done.returncode == 0, done.stderr
    assert done.stdout.replace(str(tmp_path), "/tmp") == COMPARE_GOLDEN.read_text()
    assert not (tmp_path / "table").exists()


def test_a_comparison_that_cannot_run_is_one_line(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data.folder", str(dataset), "--output", str(tmp_path), "--systems", "sim,none"]
    assert main(["submit", "--dry_run", "compare", *options]) == 2
    assert "--systems: there is no conf/model/none.yaml" in capsys.readouterr().err.splitlines()[-1]


def test_a_comparisons_files_outside_of_conf_become_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "desk").mkdir()
    (tmp_path / "sim").mkdir()  # the name of a system is no path, even if there is a folder of that name
    given = ["--output", "out", "--config=conf/model/sim.yaml", "--config", "a.yaml", "--systems", "sim,b.yaml"]
    given += ["--settings_from", "earlier", "--baseline", "sim", "--runs=runs", "--data.folder", "data", "--quick"]
    given += ["--trainer.callbacks.folder", "./desk", "--trainer.default_root_dir=root", "--experiment", "sim"]
    given += ["--finetune", "a.ckpt", "--checkpoint.dirpath=c", "--model.lr", "0.1"]
    here = str(tmp_path)
    assert with_absolute_paths(given) == [
        *("--output", f"{here}/out", "--config=conf/model/sim.yaml", "--config", f"{here}/a.yaml"),
        *("--systems", f"sim,{here}/b.yaml", "--settings_from", f"{here}/earlier", "--baseline", "sim"),
        *(f"--runs={here}/runs", "--data.folder", f"{here}/data", "--quick"),
        *("--trainer.callbacks.folder", f"{here}/desk", f"--trainer.default_root_dir={here}/root"),
        *("--experiment", "sim", "--finetune", f"{here}/a.ckpt", f"--checkpoint.dirpath={here}/c", "--model.lr", "0.1"),
    ]


def test_sbatch_without_a_cluster_is_one_line(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("sbatch", "sinfo"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'sinfo: error: no DNS'\necho 'sinfo: fatal: no source'\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert submit(dataset, tmp_path / "runs") == 2
    words = "sbatch is here, but no cluster answers (sinfo: fatal: no source): go to your cluster's login node"
    assert capsys.readouterr().err == f"ccn: error: {words}\n"


def test_without_sbatch_there_is_one_line(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    done = make(tmp_path, f"DATA={make_dataset()}")
    assert done.returncode != 0
    assert [line for line in done.stderr.splitlines() if not line.startswith("make:")] == [
        "ccn: error: there is no sbatch here: go to your cluster's login node, or `make train` on this machine"
    ]


def submit(folder: Path, runs: Path, *options: str, before: tuple[str, ...] = (), gpus: int = 1) -> int:
    command = ["fit", "--data.folder", str(folder), "--runs", str(runs), *options]
    return main(["submit", "--dry_run", "--nodes", "2", "--gpus", str(gpus), *before, *command])


REFUSED: list[tuple[tuple[str, ...], str]] = [
    (("--data.folder", "nowhere"), "nowhere: no such folder"),
    (("--data.batch_pages", "1"), "2 ranks cannot share a global batch of 1 pages: make data.batch_pages"),
    (("--runs", "/dev/null/runs"), "/dev/null/runs/default: cannot be written to: "),
    (
        ("--ckpt_path", "a.ckpt"),
        "a job continues from the newest checkpoint in its own folder; to continue another",
    ),
    (("--finetune", "a.ckpt"), "cannot load checkpoint a.ckpt: it does not exist"),
    (("--trainer.strategy", "ddp"), "trainer.strategy is ddp: leave it out"),
]


@pytest.mark.parametrize(("options", "words"), REFUSED, ids=[options[0] for options, _ in REFUSED])
def test_what_cannot_run_is_one_line(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], words: str
) -> None:
    assert submit(dataset, tmp_path / "runs", *options) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_tables_that_do_not_fit_are_refused(
    make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_dataset(mapping="hash")
    schema = folder / "schema.yaml"
    schema.write_text(schema.read_text().replace("rows: 41", "rows: 40000000000"))
    assert submit(folder, tmp_path / "runs") == 2
    said = capsys.readouterr()
    assert "it does NOT fit on 2 rank(s) of 80 GiB" in said.out
    assert "the tables do not fit on 2 ranks of 80 GiB, see above" in said.err


def test_an_unknown_option_names_itself(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        submit(dataset, tmp_path, "--model.system.temprature", "0.5")
    assert "temprature" in capsys.readouterr().err


def test_a_folder_that_is_no_run_cannot_be_resumed(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit(dataset, tmp_path, before=("--resume", str(tmp_path))) == 2
    assert f"RESUME={tmp_path}: no config.yaml there" in capsys.readouterr().err
