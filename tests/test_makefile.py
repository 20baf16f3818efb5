"""The Makefile's variables reach the commands; installs are done once, whole, and again when they must be."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VARIABLES: tuple[str, ...] = (
    "ARGS",
    "CKPT",
    "CONFIG",
    "DATA",
    "FLAVOUR",
    "INDEX",
    "OUT",
    "PYTHON",
    "QUICK",
    "TRIO",
    "VENV",
    "WALL",
    "WORLD_ARGS",
)
VARIABLES += ("DRY_RUN", "GPUS", "NODES", "PARTITION", "PACKAGE", "REQUESTS", "RESUME", "SBATCH", "TASKS", "TIME")


def make(*words: str) -> subprocess.CompletedProcess[str]:
    # `make test` hands its own variables down through the environment.
    inherited = (*VARIABLES, "MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "MAKELEVEL")
    environment = {name: value for name, value in os.environ.items() if name not in inherited}
    return subprocess.run(["make", *words], cwd=ROOT, capture_output=True, text=True, env=environment)


def dry_run(*words: str) -> str:
    answer = make("--dry-run", *words)
    assert answer.returncode == 0, answer.stderr
    return re.sub(r"\s+", " ", answer.stdout.replace("\\\n", " "))


@pytest.fixture
def installed(tmp_path: Path) -> str:
    """`VENV=` of a finished install of the cpu flavour, with the developers' extras."""
    for name in ("installed-cpu", "installed-dev"):
        (tmp_path / name).touch()
    return f"VENV={tmp_path}"


def test_train_uses_the_default_world(installed: str) -> None:
    commands = dry_run("train", installed)
    assert 'data world "data/world"' in commands
    assert 'ccn fit --config conf/experiment/default.yaml --data.folder "data/world"' in commands
    assert '"data/world" --config conf/model/tan.yaml' in dry_run("train", installed, "CONFIG=conf/model/tan.yaml")


def test_compare_and_simulate_share_a_folder_that_quick_and_out_change(installed: str) -> None:
    assert 'ccn compare --data.folder "data/world" --output "runs/compare"' in dry_run("compare", installed)
    quick = dry_run("compare", installed, "QUICK=1")
    assert '--output "runs/compare-quick" --quick' in quick
    assert 'ccn simulate --comparison "runs/compare"' in dry_run("simulate", installed)
    assert 'ccn simulate --comparison "elsewhere" --visits 9' in dry_run(
        "simulate", installed, "OUT=elsewhere", "ARGS=--visits 9"
    )


def test_bench_measures_with_the_peers_and_renews_the_page_unless_it_is_quick(installed: str) -> None:
    venv = installed.removeprefix("VENV=")
    commands = dry_run("bench", installed)
    assert f"{venv}/bin/python -m venv" in commands
    assert f"{venv}-bench/bin/python -m pip --quiet" in commands
    assert f"{venv}/bin/python -m benchmarks.bench --peers {venv}-bench" in commands
    assert f"{venv}/bin/python -m benchmarks.report" in commands
    quick = dry_run("bench", installed, "QUICK=1", "WALL=1")
    assert "--wall true --quick true" in quick
    assert "benchmarks.report" not in quick


def test_variables_reach_train(installed: str) -> None:
    commands = dry_run(
        "train",
        installed,
        "DATA=logs/ebnerd",
        "CONFIG=one.yaml two.yaml",
        "ARGS=--trainer.max_epochs 3",
    )
    assert '--data.folder "logs/ebnerd" --config one.yaml --config two.yaml --trainer.max_epochs 3' in commands
    assert 'data world "logs/ebnerd" --seed 7' in dry_run("data", installed, "DATA=logs/ebnerd", "WORLD_ARGS=--seed 7")


def test_whole_dataset_folder_is_not_made_again(installed: str, tmp_path: Path) -> None:
    (tmp_path / "stats.json").touch()
    answer = make("data", installed, f"DATA={tmp_path}")  # the venv is empty: running `ccn` would fail
    assert answer.returncode == 0, answer.stderr
    assert "exists already" in answer.stdout


@pytest.fixture
def recorded(installed: str, tmp_path: Path) -> Path:
    """Where `ccn` of the `installed` environment writes its arguments."""
    script(tmp_path / "bin" / "ccn", f'echo "$@" >> {tmp_path}/calls')
    return tmp_path / "calls"


@pytest.mark.parametrize("target", ["train", "compare", "train-multinode", "compare-multinode"])
def test_no_world_is_made_up_where_a_folder_was_named(
    installed: str, recorded: Path, tmp_path: Path, target: str
) -> None:
    named = tmp_path / "lgo"
    answer = make(target, installed, f"DATA={named}")
    assert answer.returncode != 0
    assert f"DATA={named}: no such folder; correct it, or ask for a synthetic world there: make data" in answer.stderr
    named.mkdir()
    (named / "part-0.parquet").touch()
    answer = make(target, installed, f"DATA={named}")
    assert f"DATA={named}: has no schema.yaml, so it is not a dataset folder" in answer.stderr
    assert not recorded.exists()


def test_data_in_an_object_store_are_left_to_the_command(installed: str, recorded: Path) -> None:
    named = "DATA=s3://bucket/world"
    assert make("train", installed, named).returncode == 0
    assert "--data.folder s3://bucket/world" in recorded.read_text()
    answer = make("data", installed, named)
    assert answer.returncode != 0
    assert f"{named}: is in an object store; make the world on a disk, and upload it" in answer.stderr
    assert "data world" not in recorded.read_text()


def test_a_world_is_made_at_the_default_place_or_where_it_is_asked_for(
    installed: str, recorded: Path, tmp_path: Path
) -> None:
    assert make("data", installed, f"DATA={tmp_path}/world", "WORLD_ARGS=--seed 7").returncode == 0
    assert make("data", "train", installed, f"DATA={tmp_path}/both").returncode == 0
    assert recorded.read_text().splitlines()[:2] == [
        f"data world {tmp_path}/world --seed 7",
        f"data world {tmp_path}/both",
    ]


@pytest.mark.parametrize("target", ["data", "train"])
def test_a_folder_without_stats_is_checked_and_neither_made_up_nor_removed(
    installed: str, recorded: Path, tmp_path: Path, target: str
) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "schema.yaml").touch()
    answer = make(target, installed, f"DATA={tmp_path}/log")
    assert answer.returncode != 0
    assert f"ccn data check '{tmp_path}/log' --write_stats true" in answer.stderr
    assert "remove" not in answer.stderr
    assert not recorded.exists()


def test_an_environment_of_another_checkout_is_not_taken_over(installed: str, tmp_path: Path) -> None:
    record = tmp_path / "lib" / "python3.11" / "site-packages" / "lightning_ccn-1.0.dist-info" / "direct_url.json"
    record.parent.mkdir(parents=True)
    other = tmp_path / "another chéckout"
    other.mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    record.write_text(json.dumps({"dir_info": {"editable": True}, "url": other.as_uri()}))
    for target in ("install", "test", "train"):
        answer = make(target, installed)
        assert answer.returncode != 0
        assert f"holds lightning_ccn of {other}; give this checkout its own: make VENV=" in answer.stderr
    record.write_text(json.dumps({"dir_info": {"editable": True}, "url": ROOT.as_uri()}))
    assert make("install", installed).returncode == 0


def test_variables_reach_finetune_predict_and_plan(installed: str) -> None:
    finetune = dry_run("finetune", installed, "CKPT=runs/a/1/last", "DATA=data/june", "ARGS=--x 1")
    assert (
        'ccn fit --config conf/experiment/finetune.yaml --finetune "runs/a/1/last" --data.folder "data/june" --x 1'
        in finetune
    )
    predict = dry_run("predict", installed, "CKPT=runs/a/1/last", "DATA=data/june", "OUT=scores")
    assert '--ckpt_path "runs/a/1/last" --data.folder "data/june" --output "scores"' in predict
    assert "--config" not in predict  # `ccn` itself finds the config.yaml of the checkpoint's run
    assert "plan --config a.yaml --x 1" in dry_run("plan", installed, "CONFIG=a.yaml", "ARGS=--x 1")
    export = dry_run("export", installed, "CKPT=runs/a/1", "DATA=data/june", "OUT=p", "ARGS=--table_dtype int8")
    assert 'export --ckpt_path "runs/a/1" --data.folder "data/june" --output "p" --table_dtype int8' in export
    assert 'serve "p" --port 80' in dry_run("serve", installed, "PACKAGE=p", "ARGS=--port 80")
    assert 'score "p" "r.csv" "s"' in dry_run("score", installed, "PACKAGE=p", "REQUESTS=r.csv", "OUT=s")


def test_variables_reach_train_multinode(installed: str) -> None:
    commands = dry_run("train-multinode", installed, "DATA=d", "NODES=4", "GPUS=0", "TIME=5", "SBATCH=-q low -x n7")
    assert (
        'ccn submit --time "5" --sbatch="-q low -x n7" --nodes 4 --gpus 0 '
        'fit --config conf/experiment/default.yaml --data.folder "d"'
    ) in commands
    again = dry_run("train-multinode", installed, "RESUME=runs/a/1", "PARTITION=p", "DRY_RUN=1", "ARGS=--x 1")
    assert 'submit --partition "p" --dry_run --nodes 2 --gpus 8 --resume "runs/a/1" fit --x 1' in again


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["predict"], "CKPT"),
        (["export"], "CKPT"),
        (["score", "PACKAGE=p"], "REQUESTS"),
        (["finetune", "DATA=d"], "CKPT"),
        (["finetune", "CKPT=c"], "DATA"),
    ],
    ids=["predict CKPT", "export CKPT", "score REQUESTS", "finetune CKPT", "finetune DATA"],
)
def test_missing_variable_is_named_before_anything_is_installed(tmp_path: Path, words: list[str], missing: str) -> None:
    answer = make(*words, f"VENV={tmp_path / 'venv'}")
    assert answer.returncode != 0
    assert f"{missing}= is missing" in answer.stderr
    assert not (tmp_path / "venv").exists()


def test_help_is_the_default_and_lists_every_target_and_variable() -> None:
    answer = make()
    assert answer.stdout == make("help").stdout
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    listed = re.findall(r"^  (\S+) ", answer.stdout, re.MULTILINE)
    assert sorted(listed) == sorted([*phony.split(), *VARIABLES])


def test_install_is_done_once(installed: str) -> None:
    assert "pip install" not in dry_run("install", installed)
    assert "pip install" not in dry_run("test", installed)


def test_changed_project_file_installs_again(installed: str, tmp_path: Path) -> None:
    long_ago = time.time() - 10**9
    for stamp in tmp_path.iterdir():
        os.utime(stamp, (long_ago, long_ago))
    commands = dry_run("test", installed)
    assert "--editable '.[cpu]'" in commands
    assert "--no-deps torchrec==1.9.2" in commands
    assert "--editable '.[cpu,dev]'" in commands


def test_other_flavour_installs_again_and_a_finished_one_is_kept(installed: str) -> None:
    assert "--editable '.[cuda]'" in dry_run("install", installed, "FLAVOUR=cuda")
    Path(installed.removeprefix("VENV="), "installed-cpu").rename(
        Path(installed.removeprefix("VENV="), "installed-cuda")
    )
    assert "pip install" not in dry_run("install", installed)


def test_the_older_trio_is_installed_into_a_virtual_environment_of_its_own(tmp_path: Path) -> None:
    commands = dry_run("test", f"VENV={tmp_path}", "FLAVOUR=cpu", "TRIO=2.11")
    assert "--editable '.' torch==2.11.0 fbgemm-gpu-cpu==1.6.0" in commands
    assert "--no-deps torchrec==1.6.1" in commands
    assert "--editable '.[dev]' torch==2.11.0 fbgemm-gpu-cpu==1.6.0" in commands
    answer = make("install", f"VENV={tmp_path}", "TRIO=2.12")
    assert "TRIO=2.12: must be 2.14 or 2.11" in answer.stderr


def test_unknown_flavour_is_refused() -> None:
    answer = make("install", "FLAVOUR=tpu")
    assert answer.returncode != 0
    assert "FLAVOUR=tpu: must be cpu or cuda" in answer.stderr


def test_further_index_reaches_pip(tmp_path: Path) -> None:
    assert "--extra-index-url file:///wheels" in dry_run(
        "install", f"VENV={tmp_path}", "INDEX=file:///wheels", "FLAVOUR=cpu"
    )


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_python_that_is_too_old_is_refused_in_words(tmp_path: Path) -> None:
    old = script(tmp_path / "python3.9", "exit 1")
    answer = make("install", f"VENV={tmp_path / 'venv'}", f"PYTHON={old}", "FLAVOUR=cpu")
    assert answer.returncode != 0
    assert "is not Python 3.11, 3.12 or 3.13" in answer.stderr
    assert not (tmp_path / "venv").exists()


def test_interrupted_install_starts_afresh(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    pip = script(tmp_path / "pip", f"exit $(cat {tmp_path}/answer)")
    # Stands in for Python: fits, and makes a virtual environment whose pip answers what the test says.
    python = script(
        tmp_path / "python",
        f'case "$*" in -c*) exit 0;; esac\necho "$*" >> {tmp_path}/calls\n'
        f"mkdir -p {venv}/bin; touch {venv}/pyvenv.cfg; ln -sf {pip} {venv}/bin/python",
    )
    install = ("install", f"VENV={venv}", f"PYTHON={python}", "FLAVOUR=cpu")

    (tmp_path / "answer").write_text("1")
    assert make(*install).returncode != 0
    assert not list(venv.glob("installed-*"))

    (tmp_path / "answer").write_text("0")
    assert make(*install).returncode == 0
    assert (venv / "installed-cpu").exists()
    assert (tmp_path / "calls").read_text().splitlines() == [f"-m venv {venv}", f"-m venv --clear {venv}"]
