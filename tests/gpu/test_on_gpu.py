"""What a GPU must do as a CPU does: `make test-gpu`.

On a CPU each check is a rehearsal, which compares the CPU with itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.copy_ahead import copied_ahead
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.ragged import take
from lightning_ccn.data.reader import PageBatches
from tests.gpu.conftest import needs_gpu
from tests.gpu.runs import QUIET, Run, fit, run, saving_every
from tests.models.pages import SYSTEMS, loss
from tests.sharding.ranks import on_ranks

STEPS = ["--trainer.max_steps", "12"]
Plain = Callable[[str], Run]


@pytest.fixture(scope="module")
def plain(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Plain:
    """`plain(accelerator)` is a run of STEPS with no other option; do not write to it."""
    home = tmp_path_factory.mktemp("plain")

    @cache
    def trained(accelerator: str) -> Run:
        return fit(home, accelerator, world, accelerator, *STEPS)

    return trained


def test_a_default_run_trains_tests_and_reports_a_worlds_bounds(world: Path, tmp_path: Path, accelerator: str) -> None:
    options = ["--test_after_fit", "true", "--trainer.limit_val_batches", "1.0", "--trainer.max_epochs", "1"]
    found = fit(tmp_path, "default", world, accelerator, *options).metrics
    assert {"auc", "page_gauc", "val_auc", "oracle_auc", "attainable_auc", "train_items_per_second"} <= found.keys()
    assert 0.4 < found["auc"] < found["oracle_auc"]


def test_a_checkpoint_of_the_cpu_goes_on_alike(world: Path, tmp_path: Path, accelerator: str) -> None:
    start = fit(tmp_path, "start", world, "cpu", "--trainer.max_steps", "3", *saving_every(2)).checkpoint(2)
    on_cpu, there = (
        fit(tmp_path, name, world, where, *STEPS, "--ckpt_path", str(start))
        for name, where in (("on_cpu", "cpu"), ("there", accelerator))
    )
    assert list(there.losses) == list(on_cpu.losses)
    differ = [abs(there.losses[step] - on_cpu.losses[step]) for step in on_cpu.losses]
    assert max(differ[:5]) < 1e-5
    assert max(differ) < 1e-3
    for name, value in on_cpu.tensors().items():
        if value.is_floating_point() and not name.startswith(("random", "optimizer")):
            torch.testing.assert_close(there.tensors()[name], value, rtol=0, atol=5e-3, msg=name)


def test_a_checkpoint_scores_alike_on_the_cpu(plain: Plain, tmp_path: Path, accelerator: str) -> None:
    trained = plain(accelerator)
    results = {}
    for where in ("cpu", accelerator):
        place = ["--runs", str(tmp_path), "--experiment", "scored", "--run_id", where, "--trainer.accelerator", where]
        words = ["test", *place, "--ckpt_path", str(trained.folder), *QUIET, "--wandb", "off"]
        assert on_ranks(1, run, words=words) == [0]
        results[where] = Run(tmp_path / "scored" / where).metrics
    for name in ("auc", "page_gauc", "logloss", "calibration"):
        assert results[accelerator][name] == pytest.approx(results["cpu"][name], abs=1e-4)


def test_a_deterministic_run_that_continues_is_the_same_run(world: Path, tmp_path: Path, accelerator: str) -> None:
    same = [*STEPS, "--trainer.deterministic", "true"]
    whole = fit(tmp_path, "whole", world, accelerator, *same, *saving_every(6))
    half = fit(tmp_path, "half", world, accelerator, *same, "--ckpt_path", str(whole.checkpoint(6)))
    expected = whole.tensors()
    for name, value in half.tensors().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(
    "option",
    [
        ["--trainer.precision", "bf16-mixed"],
        ["--model.system.table_dtype", "fp16"],
        pytest.param(
            ["--trainer.strategy.plan", "{item: table_wise+uvm}"], marks=[pytest.mark.gpu, needs_gpu], id="uvm"
        ),
    ],
    ids=str,
)
def test_less_memory_gives_nearly_the_same_losses(
    option: list[str], plain: Plain, world: Path, tmp_path: Path, accelerator: str
) -> None:
    if "+uvm" in option[1] and accelerator == "cpu":
        accelerator = "gpu"  # a CPU refuses it, see test_options.py
    usual, less = plain(accelerator).losses, fit(tmp_path, "less", world, accelerator, *STEPS, *option).losses
    assert list(less.values()) == pytest.approx(list(usual.values()), abs=0.02)
    assert less.keys() == usual.keys()


COMPILED = ["--model.compile_layers", "true"]


@pytest.mark.gpu
@needs_gpu
def test_compiled_layers_train_alike(plain: Plain, world: Path, tmp_path: Path) -> None:
    usual, compiled = plain("gpu").losses, fit(tmp_path, "compiled", world, "gpu", *STEPS, *COMPILED).losses
    assert list(compiled.values()) == pytest.approx(list(usual.values()), abs=1e-3)
    assert compiled.keys() == usual.keys()


@pytest.mark.gpu
@needs_gpu
def test_a_deterministic_run_of_compiled_layers_that_continues_is_the_same_run(world: Path, tmp_path: Path) -> None:
    same = [*STEPS, "--trainer.deterministic", "true", *COMPILED]
    whole = fit(tmp_path, "whole", world, "gpu", *same, *saving_every(6))
    half = fit(tmp_path, "half", world, "gpu", *same, "--ckpt_path", str(whole.checkpoint(6)))
    expected = whole.tensors()
    for name, value in half.tensors().items():
        assert torch.equal(value, expected[name]), name


@pytest.fixture(scope="module")
def pages(dataset: Path) -> PageBatches:
    return PageBatches(Dataset.open(dataset), "test", batch_pages=24, short_length=5, long_length=4, with_gaps=True)


@pytest.fixture(scope="module")
def batches(pages: PageBatches) -> list[PageBatch]:
    nobody = {name: take(column, torch.zeros(0).long().numpy()) for name, column in pages.row_group(0).items()}
    return [pages[0, 0], pages.collator(nobody)]


@pytest.mark.parametrize("make", SYSTEMS.values(), ids=list(SYSTEMS))
def test_every_system_has_the_cpus_loss_on_full_and_empty_batches(
    make: type, pages: PageBatches, batches: list[PageBatch], device: torch.device
) -> None:
    torch.manual_seed(0)
    system = make(pages.dataset, dim=8)
    expected = [loss(system, batch).item() for batch in batches]
    assert expected[1] == 0.0
    there = make(pages.dataset, dim=8).to(device)
    there.load_state_dict(system.state_dict())
    for batch, value in zip(batches, expected, strict=True):
        there.zero_grad()
        found = loss(there, batch.to(device))
        found.backward()
        assert found.item() == pytest.approx(value, rel=1e-3, abs=1e-6)
        assert all(torch.isfinite(p.grad).all() for p in there.parameters() if p.grad is not None)


@pytest.mark.gpu
@needs_gpu
def test_batches_that_are_copied_ahead_are_the_same(batches: list[PageBatch]) -> None:
    there = list(copied_ahead(batches * 3, torch.device("cuda", 0)))
    torch.cuda.synchronize()
    for found, expected in zip(there, batches * 3, strict=True):
        for one, two in zip(found.tensors(), expected.tensors(), strict=True):
            assert torch.equal(one.cpu(), two)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", list(SYSTEMS))
def test_a_forward_and_a_backward_pass_never_wait(name: str, pages: PageBatches, batches: list[PageBatch]) -> None:
    device = torch.device("cuda", 0)
    system = SYSTEMS[name](pages.dataset, dim=8).to(device)
    batch = batches[0].to(device)
    loss(system, batch).backward()  # the first call may compile and allocate
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss(system, batches[0].pin_memory().to(device, non_blocking=True)).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
