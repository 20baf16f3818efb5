"""A training step that never waits for a GPU, counted on a CPU."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.datamodule import PageData
from lightning_ccn.models import CCN, CRRN, DEI2N, DIAN, DIHN, DIN, SIM, TAN, WideDeep
from lightning_ccn.module import CTRModule
from lightning_ccn.sharding import TorchRecStrategy
from lightning_ccn.sharding.tables import collections
from tests.gpu.bare_trainer import bare_trainer
from tests.gpu.pretend_gpu import torchrec_as_on_a_gpu
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


class Counted(NamedTuple):
    """What was counted in one step of one rank.

    Attributes:
        ours, theirs: Waits by call and place, of this package, and of TorchRec. (fbgemm asks for values too, but of
            `iter_cpu` and `feature_dims`, which are on the host: the H200 has shown no wait for them.)
        sharded: Number of sharded collections, each with an exchange of its own.
        collectives: Collective operations of this package by name.
        barriers: Barriers by package.
        calls: All calls.
    """

    ours: dict[str, int]
    theirs: dict[str, int]
    sharded: int
    collectives: dict[str, int]
    barriers: dict[str, int]
    calls: int


def count(
    folder: Path,
    home: Path,
    system: str,
    compiled: bool = False,
    kind: type[CTRModule] = CTRModule,
    exchange_ahead: bool | None = None,
) -> Counted:
    """Counts one step; with `compiled`, without the calls that torch.compile would take from Python."""
    names = {"ccn": CCN, "tan": TAN, "sim": SIM, "din": DIN, "dian": DIAN, "dihn": DIHN, "wide_deep": WideDeep}
    names |= {"crrn": CRRN, "dei2n": DEI2N}
    options = {"item_kernel": "sequence", "dim": 8}
    if system == "dice":
        names, options = {"dice": DIN}, options | {"activation": "dice"}
    data = PageData(folder, batch_pages=16, workers=0)
    counting = CountStep(STEP)
    ranks = int(os.environ["CCN_TEST_WORLD_SIZE"])
    module = kind(data.dataset, lambda dataset: names[system](dataset, **options), compile_layers=compiled)
    strategy = TorchRecStrategy(bounds_check="ignore", exchange_ahead=exchange_ahead)
    with torchrec_as_on_a_gpu(), compiled_calls_left_out(counting.waits) if compiled else nullcontext():
        bare_trainer(home, strategy, "cpu", ranks, STEP + 1, counting).fit(module, data)
    waits = counting.waits
    return Counted(
        waits.of("lightning_ccn"),
        waits.of("torchrec"),
        sum(1 for _ in collections(module)),
        {name: times for (who, name), times in waits.collectives.items() if who == "lightning_ccn"},
        waits.barriers,
        waits.calls,
    )


@pytest.mark.parametrize("system", ["ccn", "dihn", "dice", "wide_deep", "crrn", "dei2n"])
def test_a_step_reads_nothing_but_the_loss_of_the_step_before(system: str, dataset: Path, tmp_path: Path) -> None:
    (found,) = on_ranks(1, count, folder=dataset, home=tmp_path, system=system)
    assert [wait.split(":")[0] for wait in found.ours] == ["tolist at evaluation/finite_loss.py"]
    assert sum(found.ours.values()) == 1
    assert found.collectives == ({"all_reduce": 1} if system == "dice" else {})
    assert found.barriers == {}


@pytest.mark.parametrize("exchange_ahead", [True, False])
def test_two_ranks_exchange_their_item_counts_without_a_barrier_and_torchrec_waits_for_sizes_only(
    exchange_ahead: bool, dataset: Path, tmp_path: Path
) -> None:
    settings = {"folder": dataset, "home": tmp_path, "system": "ccn", "exchange_ahead": exchange_ahead}
    for found in on_ranks(2, count, **settings):
        assert [wait.split(":")[0] for wait in found.ours] == ["tolist at evaluation/finite_loss.py"]
        assert found.collectives == {"all_reduce": 1}
        assert found.barriers == {}
        assert found.calls < 900  # a loop over pages, tables or features would show here
        theirs = sum(found.theirs.values())
        exchanges = f"TorchRec's, for {found.sharded} exchanges"
        print(f"a step of CCN on two ranks waits {1 + theirs} times: 1 wait is ours, {theirs} are {exchanges}")
        # An exchange reads the sizes of the other ranks, and how many ids have come of each feature. TorchRec from 1.9
        # on also reads what was sent, which counts here, but is on the host (`sharding/sizes_exchange.py`).
        assert 0 < theirs <= 3 * found.sharded
        assert 1 + theirs <= 8


class WithBarriers(CTRModule):
    """Has barriers in a step: Lightning's, and one of this process group."""

    def on_train_batch_start(self, batch: PageBatch, batch_idx: int) -> None:
        """Waits for the other ranks."""
        self.trainer.strategy.barrier()
        dist.monitored_barrier()


def test_a_barrier_in_a_step_is_found(dataset: Path, tmp_path: Path) -> None:
    settings = {"folder": dataset, "home": tmp_path, "system": "sim", "kind": WithBarriers}
    for found in on_ranks(2, count, **settings):
        assert found.barriers == {"lightning": 2}  # Lightning has called the hook


def test_a_compiled_step_makes_few_calls(dataset: Path, tmp_path: Path) -> None:
    (eager,) = (found.calls for found in on_ranks(1, count, folder=dataset, home=tmp_path / "eager", system="ccn"))
    (calls,) = (found.calls for found in on_ranks(1, count, folder=dataset, home=tmp_path, system="ccn", compiled=True))
    print(f"calls of torch from Python in a step of CCN: {eager}, and {calls} with compile_layers")
    assert 200 < calls <= 400 < eager
