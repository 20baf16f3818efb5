"""`CTRModule`'s own options: the dense optimizer, its schedule, and what counts as a system."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import nn

from lightning_ccn.cli import main
from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.check.check import check
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.errors import OptionError
from lightning_ccn.evaluation.split_metrics import SplitMetrics
from lightning_ccn.models.ccn import CCN
from lightning_ccn.models.system import Prediction, System
from lightning_ccn.models.tan import TAN
from lightning_ccn.module import CTRModule
from lightning_ccn.nn.head import PageMLP
from lightning_ccn.nn.tables import PageEmbedding
from lightning_ccn.sharding import TorchRecStrategy
from lightning_ccn.sharding.checkpoint import load_tensors


class Plain(System):
    """A system without auxiliary losses."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        self.embedding = PageEmbedding(dataset.schema, 4)
        self.head = PageMLP(self.embedding.user_dim, self.embedding.item_dim, (4,))

    def forward(self, batch: PageBatch) -> Prediction:
        e = self.embedding(batch)
        return Prediction(self.head(e.user, e.target, batch.page))


class NoSystem(nn.Module):
    """A module that the trainer cannot use."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()


def fit(folder: Path, runs: Path, *options: str) -> int:
    place = ["--data.folder", str(folder), "--runs", str(runs), "--run_id", "r", "--data.batch_pages", "16"]
    quiet = ["--data.workers", "0", "--trainer.enable_progress_bar", "false", "--trainer.log_every_n_steps", "1"]
    return main(["fit", *place, *quiet, *options])


def rates(run: Path) -> list[tuple[float, float]]:
    """(dense learning rate, tables' learning rate) of each logged step."""
    with (run / "metrics.csv").open(newline="") as lines:
        return [(float(line["lr"]), float(line["table_lr"])) for line in csv.DictReader(lines) if line.get("lr")]


def test_any_optimizer_and_schedule_can_be_named_and_the_tables_follow_the_schedule(
    dataset: Path, tmp_path: Path
) -> None:
    optimizer = ["--model.optimizer", "torch.optim.Adam", "--model.optimizer.betas", "[0.5,0.9]", "--model.lr", "0.01"]
    schedule = ["--model.lr_scheduler", "torch.optim.lr_scheduler.StepLR", "--model.lr_scheduler.step_size", "2"]
    tables = ["--trainer.strategy.table_lr", "0.1"]
    assert fit(dataset, tmp_path, *optimizer, *schedule, *tables) == 0
    saved = yaml.safe_load((tmp_path / "default" / "r" / "config.yaml").read_text())["model"]["optimizer"]
    assert saved["class_path"] == "torch.optim.Adam" and saved["init_args"]["betas"] == [0.5, 0.9]
    logged = rates(tmp_path / "default" / "r")
    assert {round(dense, 6) for dense, _ in logged} == {0.01, 0.001, 0.0001, 0.00001}  # a tenth every second step
    assert all(table == pytest.approx(10 * dense, rel=1e-3) for dense, table in logged)


def test_the_default_is_adagrad_with_a_linear_fall(dataset: Path) -> None:
    module = CTRModule(Dataset.open(dataset), Plain)
    assert module.optimizer is None and module.lr_scheduler is None
    assert module.lr == 0.02 and module.final_lr == 0.1


def test_a_seed_gives_the_same_layers_whatever_the_default_device_is(dataset: Path) -> None:
    module = CTRModule(Dataset.open(dataset), Plain)
    weights = []
    for device in ("cpu", "meta"):  # Lightning makes the strategy's device the default in configure_model
        torch.manual_seed(3)
        with torch.device(device):
            system = module.new_system("cuda")
        assert isinstance(system, Plain)
        weights.append(list(system.head.parameters()))
    assert all(weight.device.type == "cpu" for weight in weights[1])
    assert all(map(torch.equal, *weights))


def configure(module: CTRModule, monkeypatch: pytest.MonkeyPatch, device: str, precision: str = "32-true") -> None:
    """Calls `configure_model` as on a device that need not be here."""

    class Elsewhere(TorchRecStrategy):
        root_device = torch.device(device)

    monkeypatch.setattr(SplitMetrics, "to", lambda self, device: self)
    module.trainer = SimpleNamespace(strategy=Elsewhere(), precision=precision)  # type: ignore[assignment]  # a part
    module.configure_model()


@pytest.mark.parametrize(
    ("system", "steps", "start"), [(CCN, 100, CCN.auxiliary_start), (CCN, math.inf, 1.0), (Plain, 100, 1.0)]
)
def test_without_the_command_line_too_the_auxiliary_losses_start_as_the_system_asks(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, system: type[System], steps: float, start: float
) -> None:
    module = CTRModule(Dataset.open(dataset), system)
    configure(module, monkeypatch, "cpu")
    module.trainer.estimated_stepping_batches = steps  # type: ignore[misc]  # a part of a trainer, see `configure`
    module.configure_optimizers()
    assert module.auxiliary_start == start


@pytest.mark.parametrize(("device", "kernel"), [("cuda", "sequence"), ("cpu", "bag")])
def test_the_lookup_kernel_is_that_of_the_strategys_device(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, device: str, kernel: str
) -> None:
    module = CTRModule(Dataset.open(dataset), Plain)
    configure(module, monkeypatch, device)
    assert isinstance(module.model, Plain)
    assert module.model.embedding.items.kernel == kernel


def test_heads_that_are_slow_on_a_gpu_in_bf16_are_named_there_only(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []
    monkeypatch.setattr("lightning_ccn.module.rank_zero_warn", warned.append)
    for device, precision in (("cpu", "bf16-mixed"), ("cuda", "32-true"), ("cuda", "bf16-mixed")):
        assert not warned
        configure(CTRModule(Dataset.open(dataset), TAN), monkeypatch, device, precision)
    assert len(warned) == 1
    assert warned[0].startswith("model.system.init_args.heads: the attention splits vectors of 80 values into 4 heads")


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": torch.optim.SGD, "initial_accumulator": 0.1},
        {"lr_scheduler": torch.optim.lr_scheduler.ConstantLR, "final_lr": 0.5},
    ],
    ids=["initial_accumulator", "final_lr"],
)
def test_an_option_that_would_be_ignored_is_rejected(dataset: Path, options: dict[str, object]) -> None:
    with pytest.raises(OptionError, match=r"only the default .* uses it; leave it out"):
        CTRModule(Dataset.open(dataset), Plain, **options)  # type: ignore[arg-type]  # a mixture of types


def test_a_system_without_auxiliary_losses_trains(dataset: Path, tmp_path: Path) -> None:
    assert fit(dataset, tmp_path, "--model.system", "tests.test_module.Plain") == 0


def auxiliary_factor_of_step(dataset: Path, tmp_path: Path, *options: str) -> list[float]:
    """What each logged step of CCN multiplies the repulsion by, if its weight is .5."""
    ccn = ["--model.system", "CCN", "--model.system.attraction", "false", "--model.system.contrast_weight", "0.5"]
    assert fit(dataset, tmp_path, *ccn, *options) == 0
    with (tmp_path / "default" / "r" / "metrics.csv").open(newline="") as lines:
        logged = [line for line in csv.DictReader(lines) if line.get("train_repulsion")]
    added = [float(line["train_loss"]) - float(line["train_ce"]) for line in logged]
    return [of / (0.5 * float(line["train_repulsion"])) for of, line in zip(added, logged, strict=True)]


def test_the_auxiliary_losses_fall_to_their_weight_over_the_first_quarter_of_a_run(
    dataset: Path, tmp_path: Path
) -> None:
    factors = auxiliary_factor_of_step(dataset, tmp_path, "--model.auxiliary_start", "9")
    assert factors == pytest.approx([9, 1 + 8 / 3, 1, 1, 1, 1], rel=1e-3)  # the quarter of 6 steps is 1.5


def test_ccn_raises_its_losses_at_the_start_unless_the_run_has_no_end(dataset: Path, tmp_path: Path) -> None:
    first, *_, last = auxiliary_factor_of_step(dataset, tmp_path / "ends")
    assert (first, last) == pytest.approx((CCN.auxiliary_start, 1), rel=1e-3)
    endless = ["--trainer.max_epochs", "-1", "--trainer.max_time", "00:00:00:03"]
    assert auxiliary_factor_of_step(dataset, tmp_path / "endless", *endless)[0] == pytest.approx(1, rel=1e-3)


def test_a_run_without_an_end_that_gets_one_is_told_that_its_rate_falls_now(dataset: Path, tmp_path: Path) -> None:
    system = ["--model.system", "tests.test_module.Plain"]
    endless = ["--trainer.max_epochs", "-1", "--trainer.max_time", "00:00:00:01"]
    ends = ["--trainer.max_epochs", "500", "--trainer.max_time", "00:00:00:02", "--ckpt_path", "last"]
    assert fit(dataset, tmp_path, *system, *endless) == 0
    with pytest.warns(UserWarning, match="was that of a run without an end, and is that of a run of [0-9,]+ steps"):
        assert fit(dataset, tmp_path, *system, *ends) == 0


def test_a_run_without_an_end_has_no_first_quarter(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endless = ["--model.system", "CCN", "--model.auxiliary_start", "9", "--trainer.max_epochs", "-1"]
    assert fit(dataset, tmp_path, *endless) == 2
    assert "model.auxiliary_start is 9.0" in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_class_that_is_no_system_is_one_line(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert CTRModule(Dataset.open(dataset), Plain).new_system().auxiliary_losses(None, None) == {}  # type: ignore[arg-type]  # unused
    with pytest.raises(OptionError, match=r"NoSystem is not a subclass of lightning_ccn.System"):
        CTRModule(Dataset.open(dataset), NoSystem).new_system()  # type: ignore[arg-type]  # that is the point
    with pytest.raises(SystemExit) as end:
        fit(dataset, tmp_path, "--model.system", "tests.test_module.NoSystem")
    assert end.value.code == 2
    assert "NoSystem" in capsys.readouterr().err.strip().splitlines()[-1]


def test_every_feature_of_a_schema_goes_from_the_files_into_training_and_scores(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    features = {"page_numbers": ("age",), "same_as_trigger": ("category",), "weight": "importance", "position_bias": 3}
    features["ratio_to_trigger"] = ("price",)  # of the item; the one of `numbers` is that of the exposure
    folder = make_dataset(numbers=("price",), **features)
    assert check(folder).errors == []
    assert fit(folder, tmp_path, "--trainer.max_steps", "4", "--test_after_fit", "true") == 0
    checkpoint = tmp_path / "default" / "r" / "checkpoints" / "last.ckpt"
    bias = torch.zeros(3)  # of positions 1, 2 and all later ones
    load_tensors(checkpoint, {"module.position_bias.bias": bias}, None)
    assert (bias != 0).all()
    place = ["--data.folder", str(folder), "--runs", str(tmp_path), "--run_id", "p"]
    assert main(["predict", *place, "--ckpt_path", str(checkpoint), "--data.workers", "0"]) == 0
