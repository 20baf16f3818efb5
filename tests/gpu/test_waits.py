"""A training step that never waits for a GPU, counted on a CPU."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from lightning_ccn.data.datamodule import PageData
from lightning_ccn.models import CCN, CRRN, DEI2N, DIAN, DIHN, DIN, SIM, TAN, WideDeep
from lightning_ccn.module import CTRModule
from lightning_ccn.sharding import TorchRecStrategy
from tests.gpu.bare_trainer import bare_trainer
from tests.gpu.waits import CountStep, Waits, compiled_calls_left_out
from tests.sharding.ranks import on_ranks

STEP = 3  # not one that is logged or saved


def test_what_waits_is_found() -> None:
    with Waits() as waits:
        x = torch.arange(4)
        x[x > 1].sum().item()
        torch.repeat_interleave(x)
        torch.repeat_interleave(x, output_size=6)
        x[x].numel()
    assert sorted(call for _, call, _ in waits.found) == ["__getitem__", "item", "repeat_interleave"]
    assert waits.calls > 8


def count(
    folder: Path, home: Path, system: str, compiled: bool = False
) -> tuple[dict[str, int], dict[str, int], int]:
    """Waits of this package, collective operations of this package, and all calls, of one step.

    With `compiled`, without the calls that torch.compile would take from Python.
    """
    names = {"ccn": CCN, "tan": TAN, "sim": SIM, "din": DIN, "dian": DIAN, "dihn": DIHN, "wide_deep": WideDeep}
    names |= {"crrn": CRRN, "dei2n": DEI2N}
    options = {"item_kernel": "sequence", "dim": 8}
    if system == "dice":
        names, options = {"dice": DIN}, options | {"activation": "dice"}
    data = PageData(folder, batch_pages=16, workers=0)
    counting = CountStep(STEP)
    ranks = int(os.environ["CCN_TEST_WORLD_SIZE"])
    module = CTRModule(data.dataset, lambda dataset: names[system](dataset, **options), compile_layers=compiled)
    strategy = TorchRecStrategy(bounds_check="ignore")
    with compiled_calls_left_out(counting.waits) if compiled else nullcontext():
        bare_trainer(home, strategy, "cpu", ranks, STEP + 1, counting).fit(module, data)
    waits = counting.waits
    ours = {name: times for (who, name), times in waits.collectives.items() if who == "lightning_ccn"}
    return waits.of("lightning_ccn"), ours, waits.calls


@pytest.mark.parametrize("system", ["ccn", "dihn", "dice", "wide_deep", "crrn", "dei2n"])
def test_a_step_reads_nothing_but_the_loss_of_the_step_before(system: str, dataset: Path, tmp_path: Path) -> None:
    ((found, collectives, _),) = on_ranks(1, count, folder=dataset, home=tmp_path, system=system)
    assert [wait.split(":")[0] for wait in found] == ["tolist at evaluation/finite_loss.py"]
    assert sum(found.values()) == 1
    assert collectives == ({"all_reduce": 1} if system == "dice" else {})


def test_two_ranks_exchange_their_item_counts_without_a_barrier(dataset: Path, tmp_path: Path) -> None:
    for found, collectives, calls in on_ranks(2, count, folder=dataset, home=tmp_path, system="ccn"):
        assert [wait.split(":")[0] for wait in found] == ["tolist at evaluation/finite_loss.py"]
        assert collectives == {"all_reduce": 1}
        assert calls < 900  # a loop over pages, tables or features would show here


def test_a_compiled_step_makes_few_calls(dataset: Path, tmp_path: Path) -> None:
    ((_, _, eager),) = on_ranks(1, count, folder=dataset, home=tmp_path / "eager", system="ccn")
    ((_, _, calls),) = on_ranks(1, count, folder=dataset, home=tmp_path, system="ccn", compiled=True)
    print(f"calls of torch from Python in a step of CCN: {eager}, and {calls} with compile_layers")
    assert 200 < calls <= 400 < eager
