"""The strategy: all of Lightning's commands, one schedule for both optimizers, errors for unsupported settings."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, GradientAccumulationScheduler
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig

from lightning_ccn.sharding import ShardingError, TorchRecStrategy
from lightning_ccn.sharding.tables import sharded_tables
from lightning_ccn.sharding.torchrec_private import kernel_learning_rates
from tests.sharding.dlrm import DIM, DLRM, META, Batch, Loader
from tests.sharding.ranks import on_ranks
from tests.sharding.runs import fitted, make_model, make_trainer, refusal, try_to_fit


def all_commands(folder: str) -> list[Any]:
    """On one rank: fit, test, validate, predict and fit again with one module and one Trainer."""
    model = make_model()
    trainer = make_trainer(folder, TorchRecStrategy(plan={"item": "row_wise"}))
    trainer.fit(model, Loader(5), Loader(2, first=50))
    (tested,) = trainer.test(model, Loader(2, first=50), verbose=False)
    (validated,) = trainer.validate(model, Loader(2, first=50), verbose=False)
    predicted = trainer.predict(model, Loader(2, first=50))
    assert predicted is not None
    trainer.fit_loop.max_epochs = 2
    trainer.fit(model, Loader(5))
    first, second = model.losses[:5], model.losses[5:]
    return [tested["loss"], validated["loss"], [len(part) for part in predicted], sum(first), sum(second)]


@pytest.mark.parametrize("world_size", [1, 2])
def test_one_trainer_fits_tests_validates_predicts_and_fits_again(tmp_path: Path, world_size: int) -> None:
    results = on_ranks(world_size, all_commands, folder=str(tmp_path))
    rows = [sum(result[2][batch] for result in results) for batch in range(2)]
    assert rows == [12, 13]
    assert results[0][0] == results[0][1]
    first, second = (sum(result[i] for result in results) for i in (3, 4))
    assert 0 < second < first


class Rates(Callback):
    """Records the learning rates of the tables' kernels in every step."""

    def __init__(self) -> None:
        self.seen: list[set[float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        used = [*kernel_learning_rates(module.bags), *kernel_learning_rates(module.item)]
        self.seen.append({round(rate, 6) for rate in used})


def rates(folder: str, warmup: int, ckpt_path: str | None = None) -> list[set[float]]:
    """On one rank: the tables' learning rate in each step of a fit."""
    recorded = Rates()
    trainer = make_trainer(folder, TorchRecStrategy(table_lr=0.2), callbacks=[recorded], save_every=2)
    trainer.fit(make_model(warmup=warmup), Loader(5), ckpt_path=ckpt_path)
    return recorded.seen


def test_the_tables_rate_follows_the_schedule_without_delay_and_after_a_resume(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert on_ranks(1, rates, folder=str(tmp_path / "constant"), warmup=0) == [[{0.2}] * 5]
    assert on_ranks(1, rates, folder=folder, warmup=4) == [[{0.05}, {0.1}, {0.15}, {0.2}, {0.2}]]
    resumed = on_ranks(1, rates, folder=folder, warmup=4, ckpt_path=str(tmp_path / "step=2.ckpt"))
    assert resumed == [[{0.15}, {0.2}, {0.2}]]


def optimized(folder: str) -> tuple[list[str], int, int]:
    """On one rank: the parameters in the module's optimizer, the length of its state, and the number of parameters."""
    model = make_model()
    trainer = make_trainer(folder, TorchRecStrategy())
    trainer.fit(model, Loader(2))
    names = {parameter: name for name, parameter in model.named_parameters()}
    (optimizer,) = trainer.optimizers
    held = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    return held, len(optimizer.state), len(names)


def test_configure_optimizers_sees_the_layers_without_the_tables(tmp_path: Path) -> None:
    ((held, states, parameters),) = on_ranks(1, optimized, folder=str(tmp_path))
    assert held == [f"dense.{layer}.{kind}" for layer in ("query", "top.0", "top.3") for kind in ("weight", "bias")]
    assert states == len(held)
    assert parameters == len(held) + 3  # outside configure_optimizers, parameters() includes the tables


class TablesOnly(L.LightningModule):
    """A module without replicated layers."""

    def configure_model(self) -> None:
        config = EmbeddingBagConfig(name="city", num_embeddings=3, embedding_dim=DIM, feature_names=["city"])
        self.bags = EmbeddingBagCollection(device=META, tables=[config])

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        logit = self.bags(batch.user).values().sum(1)
        return torch.nn.functional.binary_cross_entropy_with_logits(logit, batch.label)

    def configure_optimizers(self) -> None:
        return None


def train_tables_only(folder: str) -> bool:
    """On one rank: whether training changes the tables of a module without layers."""
    model = TablesOnly()
    trainer = make_trainer(folder, TorchRecStrategy())
    trainer.fit(model, Loader(3))
    (state,) = model.bags.state_dict().values()
    start = torch.full((3,), 1 / math.sqrt(3))  # TorchRec draws from +-1/sqrt(rows)
    return all(bool((shard.tensor.abs().max(1).values > start.max()).any()) for shard in state.local_shards())


def test_a_module_that_has_only_tables_is_trained(tmp_path: Path) -> None:
    assert any(on_ranks(2, train_tables_only, folder=str(tmp_path)))


def frozen_layers(folder: str) -> bool:
    """On one rank: fit with all layers frozen; whether the layers are unchanged."""
    model = make_model()
    model.dense.requires_grad_(False)
    before = model.dense.query.weight.clone()
    make_trainer(folder, TorchRecStrategy()).fit(model, Loader(3))
    return torch.equal(model.dense.query.weight, before)


def test_tables_are_trained_under_frozen_layers(tmp_path: Path) -> None:
    assert on_ranks(2, frozen_layers, folder=str(tmp_path)) == [True, True]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"trainer": {"accumulate_grad_batches": 2}}, "accumulate_grad_batches=2: tables are updated in every"),
        (
            {"trainer": {"callbacks": [GradientAccumulationScheduler({0: 1, 4: 2})]}},
            "so their gradients cannot be accumulated",
        ),
        ({"trainer": {"precision": "bf16-true"}}, "precision=bf16-true"),
        ({"trainer": {"precision": "64-true"}}, "use 32-true or bf16-mixed"),
        ({"model": {"lr": 0.0, "warmup": 3}}, "has lr 0 at the start of its schedule"),
        ({"strategy": {"plan": {"itm": "row_wise"}}}, "names tables that the model does not have"),
        ({"strategy": {"table_optimizer": "adam"}}, "table_optimizer='adam': use one of rowwise_adagrad, adagrad, sgd"),
    ],
)
def test_unsupported_settings_are_rejected_before_training(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    assert said in refusal(tmp_path, **settings)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *[("table_lr", value) for value in (-0.1, math.nan, math.inf, 1e39)],
        *[("table_eps", value) for value in (-1e-8, 0.0, 1e-50, math.nan, math.inf)],
        *[("timeout_seconds", value) for value in (0.0, -1.0, 1e-9, 1e300, math.nan, math.inf)],
        ("on_failed_save", "ignore"),
    ],
)
def test_a_value_that_cannot_work_is_refused_when_the_strategy_is_made(argument: str, value: Any) -> None:
    with pytest.raises(ShardingError) as error:
        TorchRecStrategy(**{argument: value})
    assert str(error.value).startswith(f"trainer.strategy.{argument} is {value!r}: ")
    assert "\n" not in str(error.value)


def frozen_tables(folder: str) -> bool:
    """On one rank: whether a fit with table_lr 0 leaves every table as it was, and trains the layers."""
    model = make_model()
    trainer = make_trainer(folder, TorchRecStrategy(table_lr=0.0))
    trainer.fit(model, Loader(1))
    before = [shard.tensor.clone() for table in sharded_tables(model).values() for shard in table.local_shards()]
    layer = model.dense.query.weight.detach().clone()
    trainer.fit_loop.max_epochs = 2
    trainer.fit(model, Loader(3))
    after = [shard.tensor for table in sharded_tables(model).values() for shard in table.local_shards()]
    return all(map(torch.equal, before, after)) and not torch.equal(layer, model.dense.query.weight)


def test_a_table_rate_of_0_freezes_the_tables(tmp_path: Path) -> None:
    assert on_ranks(1, frozen_tables, folder=str(tmp_path)) == [True]


class Manual(DLRM):
    """Uses manual optimization."""

    automatic_optimization = False


class Early(DLRM):
    """Creates its optimizer before it is sharded."""

    def configure_model(self) -> None:
        super().configure_model()
        self.early = torch.optim.SGD(self.parameters(), lr=0.1)

    def configure_optimizers(self) -> Any:
        return self.early


def refused(folder: str, kind: type[DLRM]) -> str:
    """On one rank: the message of the error that fitting such a module raises."""
    with pytest.raises(ShardingError) as error:
        make_trainer(folder, TorchRecStrategy()).fit(kind(), Loader(1))
    return str(error.value)


@pytest.mark.parametrize(
    ("kind", "said"), [(Manual, "automatic_optimization=False"), (Early, "taken before the module was sharded")]
)
def test_unsupported_modules_are_rejected(tmp_path: Path, kind: type[DLRM], said: str) -> None:
    assert said in on_ranks(1, refused, folder=str(tmp_path), kind=kind)[0]


def test_gradient_clipping_gives_a_warning(tmp_path: Path) -> None:
    ((*lines,),) = on_ranks(1, try_to_fit, folder=str(tmp_path), trainer={"gradient_clip_val": 1.0})
    assert any("gradient_clip_val=1.0 clips the layers only" in line for line in lines)


def test_bf16_mixed_trains(tmp_path: Path) -> None:
    losses = fitted(2, tmp_path, trainer={"precision": "bf16-mixed"}).losses
    assert losses == pytest.approx(fitted(2, tmp_path).losses, abs=0.01)


class Unused(DLRM):
    """Has a layer that the loss does not depend on."""

    def configure_model(self) -> None:
        super().configure_model()
        self.idle = torch.nn.Linear(2, 2)


def fit_with_an_unused_layer(folder: str, find_unused_parameters: bool) -> list[str]:
    """On one rank: the notes of the error that the fit raises, if any."""
    strategy = TorchRecStrategy(find_unused_parameters=find_unused_parameters)
    try:
        make_trainer(folder, strategy).fit(Unused(), Loader(3))
    except RuntimeError as error:
        return error.__notes__
    return []


def test_an_unused_layer_is_explained_or_allowed(tmp_path: Path) -> None:
    ((note,),) = on_ranks(1, fit_with_an_unused_layer, folder=str(tmp_path), find_unused_parameters=False)
    assert "TorchRecStrategy(find_unused_parameters=True)" in note
    assert on_ranks(1, fit_with_an_unused_layer, folder=str(tmp_path), find_unused_parameters=True) == [[]]


def take_over(folder: str) -> str:
    """On one rank: fit a module that another strategy has sharded."""
    model = make_model()
    make_trainer(folder, TorchRecStrategy()).fit(model, Loader(1))
    with pytest.raises(ShardingError) as error:
        make_trainer(folder, TorchRecStrategy()).test(model, Loader(1))
    return str(error.value)


def test_a_module_that_another_strategy_has_sharded_is_rejected(tmp_path: Path) -> None:
    (said,) = on_ranks(1, take_over, folder=str(tmp_path))
    assert "already sharded by another strategy" in said


SCRIPT = """
from pathlib import Path
import torch.distributed as dist
from lightning.pytorch.cli import LightningCLI
from tests.sharding.dlrm import DLRM, Loader

class Model(DLRM):
    def train_dataloader(self):
        return Loader(5)
    def on_train_end(self):
        folder = Path(self.trainer.default_root_dir)
        (folder / f"loss-{dist.get_rank()}").write_text(str(self.trainer.callback_metrics["train_loss"].item()))

LightningCLI(Model, seed_everything_default=7, save_config_callback=None, run=True)
"""

CONFIG = """
trainer:
  accelerator: cpu
  devices: 2
  max_epochs: 1
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  use_distributed_sampler: false
  strategy:
    class_path: lightning_ccn.sharding.TorchRecStrategy
    init_args:
      table_optimizer: adagrad
      table_lr: 0.1
      plan: {item: row_wise, tag: "table_wise:1"}
"""


@pytest.mark.slow
def test_the_trainer_and_torchrun_launch_the_same_run_from_yaml(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "config.yaml").write_text(CONFIG)
    fit = ["script.py", "fit", "--config", "config.yaml", "--trainer.default_root_dir"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launchers = {"trainer": [sys.executable], "torchrun": torchrun}
    own = {"MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK"}
    environment = {key: value for key, value in os.environ.items() if key not in own}
    runs = [
        subprocess.Popen(
            [*command, *fit, name],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, command in launchers.items()
    ]
    for run in runs:
        output, _ = run.communicate(timeout=120)
        assert run.returncode == 0, output
    losses = [[(tmp_path / name / f"loss-{rank}").read_text() for rank in range(2)] for name in launchers]
    assert losses[0] == losses[1]
