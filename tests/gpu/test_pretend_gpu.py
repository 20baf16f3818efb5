"""Nothing of the host meets what is on the GPU: every command, on a GPU to pretend."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from lightning_ccn import signals
from lightning_ccn.cli import main
from lightning_ccn.evaluation.item_means import _restored
from tests.gpu.pretend_gpu import WrongDevice, pretend_gpu
from tests.gpu.waits import PACKAGES
from tests.sharding.ranks import on_ranks

CPU = torch.device("cpu")
FIT = ["--data.batch_pages", "16", "--data.workers", "0", "--model.system.dim", "8", "--wandb", "off"]
FIT += ["--trainer.strategy.bounds_check", "ignore"]  # the check of ids has a form of its own on a CPU
FIT += ["--trainer.log_every_n_steps", "2", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]


def test_it_refuses_what_cuda_refuses() -> None:
    with pretend_gpu() as mode:
        on_gpu = torch.zeros(3, device=CPU)
        assert mode.place(on_gpu + 1) == "gpu"
        assert mode.place(on_gpu.cpu()) == "host"
        assert mode.place(torch.zeros(3).to(CPU)) == "gpu"
        with pytest.raises(WrongDevice, match="sub of the GPU's tensors and of a tensor"):
            _subtracts_on_behalf_of_the_package(on_gpu)
        assert mode.place(_restored(("loss",), {"loss": [1.0, 2.0]}, 1.0, CPU)) == "gpu"


def _subtracts_on_behalf_of_the_package(on_gpu: torch.Tensor) -> None:
    code = compile("on_gpu - torch.zeros(3)", PACKAGES["lightning_ccn"] + "example.py", "eval")
    eval(code, {"on_gpu": on_gpu, "torch": torch})


def collective_of_the_host() -> str:
    rank, world_size = int(os.environ["LOCAL_RANK"]), int(os.environ["CCN_TEST_WORLD_SIZE"])
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    try:
        with pretend_gpu():
            dist.all_reduce(torch.ones(2, device=CPU))
            dist.all_reduce(torch.ones(2))
    except WrongDevice as error:
        return str(error)
    return ""


def test_it_refuses_a_collective_operation_of_the_host() -> None:
    for said in on_ranks(2, collective_of_the_host):
        assert said == "all_reduce of a tensor of the host; NCCL has no group for it"


def run(words: list[str]) -> int:
    signals.reset()
    with pretend_gpu():
        return main(words)


def test_fit_resume_validate_test_and_predict_keep_the_host_out(world: Path, tmp_path: Path) -> None:
    ranks = 2
    place = ["--data.folder", str(world), "--runs", str(tmp_path), "--experiment", "e", "--trainer.devices", str(ranks)]
    place += ["--trainer.accelerator", "cpu"]
    fit = ["fit", *place, "--run_id", "r", *FIT]
    checkpoint = ["--ckpt_path", str(tmp_path / "e" / "r")]
    for words in (
        [*fit, "--trainer.max_steps", "3", "--test_after_fit", "false"],
        [*fit, "--ckpt_path", "last"],  # to the end, and the test with a world's bounds
        *([command, *place, *checkpoint] for command in ("validate", "test", "predict")),
    ):
        assert on_ranks(ranks, run, words=words) == [0] * ranks, words
