"""The command `ccn`: what it lists, what it refuses, and the commands around training."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from lightning_ccn import __version__
from lightning_ccn.cli import COMMANDS, CTRL_C, OVERVIEW, main
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.training.preflight import Preflight
from tests.processes import clean_environment
from tests.sharding.ranks import on_ranks

KNOBS = ["--users", "200", "--items", "150", "--categories", "5", "--sellers", "9"]
KNOBS += ["--train_pages", "300", "--validation_pages", "50", "--test_pages", "60"]


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == OVERVIEW
    for command in COMMANDS:
        assert f"\n  {command} " in OVERVIEW


def test_an_unknown_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fitt"]) == 2
    hint = "did you mean `ccn fit`? "
    assert capsys.readouterr().err == f"ccn: error: there is no command 'fitt'; {hint}`ccn --help` lists them\n"
    assert main(["zzz"]) == 2
    assert capsys.readouterr().err == "ccn: error: there is no command 'zzz'; `ccn --help` lists them\n"


def test_a_world_can_be_made_checked_and_scored_without_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "world"
    assert main(["data", "world", str(folder), *KNOBS]) == 0
    assert "attainable_auc of the test split: 0." in capsys.readouterr().out
    assert Dataset.open(folder).schema.tables["item"].rows == 151
    assert main(["data", "check", str(folder)]) == 0
    assert capsys.readouterr().out.endswith("valid\n")
    assert main(["data", "heuristics", str(folder)]) == 0
    assert "training click rate" in capsys.readouterr().out


def test_a_folder_that_is_not_valid_ends_with_exit_code_1(
    make_dataset: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_dataset()
    part = next((folder / "test").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:200])
    assert main(["data", "check", str(folder)]) == 1
    assert f"{part}: not a complete Parquet file" in capsys.readouterr().err


def test_a_knob_out_of_range_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "world", str(tmp_path / "world"), "--page_clickiness", "-1"]) == 2
    assert "page_clickiness is -1" in capsys.readouterr().err


def test_plan_says_whether_the_tables_fit(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--data.folder", str(dataset), "--world_size", "4", "--gpu_memory", "80"]) == 0
    assert "it fits on 4 rank(s) of 80 GiB" in capsys.readouterr().out
    assert main(["plan", "--data.folder", str(dataset), "--gpu_memory", "1e-9"]) == 1
    assert "it does NOT fit on 1 rank(s)" in capsys.readouterr().err


@pytest.mark.parametrize(("accelerator", "kernel"), [("gpu", "sequence"), ("cpu", "bag")])
def test_a_plan_has_the_kernels_of_the_accelerator_that_the_run_will_have(
    dataset: Path, capsys: pytest.CaptureFixture[str], accelerator: str, kernel: str
) -> None:
    assert main(["plan", "--data.folder", str(dataset), "--trainer.accelerator", accelerator]) == 0
    said = capsys.readouterr().out
    assert re.search(rf"^item +61 +16 +float32 +{kernel} ", said, re.MULTILINE)
    assert re.search(rf"^user +41 +16 +float32 +{kernel} ", said, re.MULTILINE)
    assert "planned for" not in said
    assert main(["plan", "--data.folder", str(dataset)]) == 0
    assert "planned for" in capsys.readouterr().out


def test_a_plan_shows_what_a_step_costs(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data.folder", str(dataset), "--world_size", "2", "--data.batch_pages", "64", "--data.lanes", "64"]
    assert main(["plan", *options]) == 0
    said = capsys.readouterr().out
    assert "a training step on 2 ranks, of 32 pages with" in said
    assert re.search(r"^item +table_wise:0 +0\.0\d\d +0\.0\d\d +0\.0\d\d$", said, re.MULTILINE)
    assert re.search(r"busiest link: rank \d (sends|receives) \d+\.\d{3} MiB$", said, re.MULTILINE)
    assert re.search(r"^ +8 +8( +\d+\.\d\d){7}$", said, re.MULTILINE)
    assert "a training step on 256 ranks: 256 ranks cannot share a global batch of 64 pages" in said


@pytest.mark.parametrize("automatic", ["balanced", "torchrec"])
def test_the_plan_is_the_runs_with_either_planner(dataset: Path, tmp_path: Path, automatic: str) -> None:
    same = ["--data.folder", str(dataset), "--trainer.strategy.automatic", automatic, "--trainer.accelerator", "cpu"]
    place = ["--runs", str(tmp_path), "--experiment", "e", "--run_id", "r", "--trainer.devices", "3", "--wandb", "off"]
    short = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "0", "--test_after_fit", "false"]
    assert on_ranks(3, main, args=["fit", *same, *place, *short, "--data.workers", "0"]) == [0] * 3
    tables = json.loads((tmp_path / "e" / "r" / "plan.json").read_text())["tables"]
    planned = Preflight(["fit", *same]).plan(3, "cpu").placement
    assert planned == {name: table["placement"] for name, table in tables.items()}
    assert (planned == Preflight(["fit", *same[:2]]).plan(3, "cpu").placement) == (automatic == "balanced")


def test_a_plan_of_torchrecs_planner_says_for_which_machines(
    dataset: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    options = ["--data.folder", str(dataset), "--trainer.strategy.automatic", "torchrec", "--world_size", "2"]
    assert main(["plan", *options, "--trainer.accelerator", "gpu", "--gpu_memory", "40"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^item +61 +16 +float32 +sequence +row_wise ", said, re.MULTILINE)
    assert re.search(r"^item +row_wise ", said, re.MULTILINE)  # in what a step costs
    assert said.endswith(
        "placed by TorchRec's planner for 8 ranks on a node and 40 GiB on a GPU; a run asks its own machines, so its "
        "plan can differ\n"
    )
    assert [line for line in caplog.messages if "TopologyFactory" in line or "dry run scenarios" in line] == []
    assert [warning for warning in recwarn if "StorageReservation" in str(warning.message)] == []
    assert main(["plan", *options, "--headroom", "0.99999999"]) == 1
    assert "it does not fit on up to 2 ranks" in capsys.readouterr().err
    assert main(["plan", *options, "--trainer.accelerator", "gpu", "--gpu_memory", "0.000001"]) == 2
    assert "its planner finds no plan" in capsys.readouterr().err


def test_torchrecs_planner_gets_the_gpus_memory_for_any_number_of_ranks(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[int, set[int]] = {}

    def placement(module: Any, ranks: int, *more: Any) -> dict[str, str]:
        asked.setdefault(ranks, set()).add(more[-1])
        return {}

    monkeypatch.setattr("lightning_ccn.sharding.torchrec_plan.torchrec_placement", placement)
    options = ["--data.folder", str(dataset), "--trainer.strategy.automatic", "torchrec"]
    assert main(["plan", *options, "--trainer.accelerator", "gpu", "--gpu_memory", "40"]) == 0
    assert asked == {ranks: {40 * 2**30} for ranks in (1, 8, 64, 256)}


def test_a_plan_that_cannot_work_is_one_line(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--trainer.strategy.plan", "{item: diagonal}"]
    assert main(["plan", "--data.folder", str(dataset), *options]) == 2
    assert "diagonal" in capsys.readouterr().err


def test_the_versions_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    shown = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert shown["lightning_ccn"] == __version__
    assert {"python", "lightning", "torch", "torchrec"} <= set(shown)


def raising(error: Exception) -> Callable[[list[str]], int]:
    def run(args: list[str]) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ZeroDivisionError("division by zero"), 1, "unexpected ZeroDivisionError at "),
        (OSError(errno.ENOSPC, "No space left on device", "/full/last.ckpt"), 1, "/full/last.ckpt: No space left"),
        (RuntimeError("gloo: Connection closed by peer"), 1, "another rank ended"),
        (ValueError("two\nlines"), 1, "two lines"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_nobody_foresaw_is_one_line_and_a_traceback_on_request(
    error: Exception, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lightning_ccn.cli._function", lambda name: raising(error))
    assert main(["fit"]) == code
    line = capsys.readouterr().err
    assert line.startswith("ccn: error: ") and len(line.splitlines()) == 1 and words in line
    assert "test_cli.py:" in line or "unexpected" not in line
    assert main(["fit", "--debug"]) == code
    said = capsys.readouterr().err
    assert said.startswith("Traceback (most recent call last):") and said.endswith(line)
    monkeypatch.setenv("CCN_DEBUG", "1")
    assert main(["fit"]) == code
    said = capsys.readouterr().err
    assert said.startswith("Traceback (most recent call last):") and said.endswith(line)


NCCL_LOST = (
    "NCCL error in: NCCLUtils.cpp:94, remote process exited or there was a network error\nncclRemoteError: A call"
)
ASSERTED = "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported at some other"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (dist.DistBackendError(NCCL_LOST), ["another rank ended, and its log says why", "--ckpt_path last continues"]),
        (dist.DistNetworkError("recvValue failed"), ["another rank ended", "--ckpt_path last continues"]),
        (dist.DistBackendError("NCCL error in: x\nncclInvalidUsage"), ["NCCL failed on this rank", "NCCL_DEBUG=INFO"]),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity"),
            ["memory is full", "data.batch_pages", "trainer.precision", "(CUDA out of memory)"],
        ),
        (RuntimeError("CUDA error: out of memory"), ["memory is full", "data.batch_pages"]),
        (RuntimeError(ASSERTED), ["device-side assert triggered;", "CUDA_LAUNCH_BLOCKING=1"]),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), ["CUDA_LAUNCH_BLOCKING=1"]),
    ],
    ids=["lost", "network", "nccl", "memory", "driver", "assert", "access"],
)
def test_errors_of_gpus_are_one_line_with_a_remedy(
    error: Exception, expected: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lightning_ccn.cli._function", lambda name: raising(error))
    assert main(["fit"]) == 1
    line = capsys.readouterr().err
    assert line.startswith("ccn: error: ")
    assert line.count("\n") == 1
    assert "unexpected" not in line
    assert [words for words in expected if words not in line] == []


def test_ccn_data_lists_its_commands_and_converters(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["data"], ["data", "--help"]):
        assert main(words) == 0
        text = capsys.readouterr().out
        assert all(
            f"\n  {name} " in text for name in ("world", "convert ebnerd", "convert mind", "check", "cut", "heuristics")
        )
    for words in (["data", "convert"], ["data", "convert", "--help"]):
        assert main(words) == 0
        assert "\n  convert ebnerd " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "wrld",
            "ccn data: there is no command 'wrld'; did you mean world? It has world, convert, build, init, check, cut, "
            "heuristics",
        ),
        (
            "convert ebnred a b",
            "ccn data convert: there is no converter 'ebnred'; did you mean ebnerd? It has ebnerd, ",
        ),
    ],
)
def test_a_misspelt_command_of_ccn_data_is_one_line(words: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *words.split()]) == 2
    said = capsys.readouterr().err
    assert line in said and len(said.splitlines()) == 1


@pytest.mark.parametrize("command", ["compare", "simulate", "submit"])
def test_a_misspelt_option_is_one_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--zzz"])
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("ccn: error: ")
    assert err.endswith(f"; `ccn {command} --help` explains\n")
    assert err.count("\n") == 1


def test_ctrl_c_during_the_imports_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_ccn.training.quiet.hide_import_noise", interrupt)
    assert main(["fit"]) == CTRL_C
    assert capsys.readouterr().err == "ccn: interrupted\n"


def test_output_that_nobody_reads_to_its_end_ends_the_command_quietly(dataset: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "lightning_ccn.cli", "data", "check", str(dataset)]
    environment = clean_environment(PYTHONPATH=os.pathsep.join(sys.path))
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as check:
        assert check.stdout is not None and check.stderr is not None
        check.stdout.close()  # as `head -0` does
        assert check.stderr.read() == b""
        assert check.wait() == 128 + signal.SIGPIPE
