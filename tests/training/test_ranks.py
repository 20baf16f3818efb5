"""Every system of conf/model is trained and tested: two real ranks learn what one learns."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_ccn.cli import main
from tests.sharding.ranks import on_ranks

MODELS = sorted((Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))
# Each system of the paper's Table 2 (TAN with both bounds): its class, and the options that distinguish it.
PAPER: dict[str, tuple[str, dict[str, Any]]] = {
    "wide_deep": ("WideDeep", {}),
    "din": ("DIN", {"activation": "prelu"}),
    "sim": ("SIM", {}),
    "dihn": ("DIHN", {}),
    "dian": ("DIAN", {}),
    "tan_bare": ("TAN", {"collaborative": False, "trigger_interaction": False}),
    "tan": ("TAN", {"collaborative": True, "trigger_interaction": True, "bound": "none"}),
    "tan_bounded": ("TAN", {"collaborative": True, "trigger_interaction": True, "bound": "sigmoid"}),
    "ccn_without_tsi": ("CCN", {"trigger_interaction": False, "repulsion": True, "attraction": True}),
    "ccn_without_attraction": ("CCN", {"trigger_interaction": True, "repulsion": True, "attraction": False}),
    "ccn_without_repulsion": ("CCN", {"trigger_interaction": True, "repulsion": False, "attraction": True}),
    "ccn": ("CCN", {"trigger_interaction": True, "repulsion": True, "attraction": True}),
}
OF_THE_RUN = {"train_items_per_second", "train_seconds", "world_size"}


def fitted(
    ranks: int,
    model: Path,
    dataset: Path,
    runs: Path,
    plan: str = '{"item": "row_wise", "user": "table_wise:0"}',
    kernel: str = "auto",
) -> Path:
    """Fits on so many ranks, with the two largest tables cut and elsewhere; the run's folder."""
    options = {
        "--config": model,
        "--data.folder": dataset,
        "--data.batch_pages": 16,
        "--data.workers": 0,
        "--runs": runs,
        "--run_id": ranks,
        "--trainer.accelerator": "cpu",
        "--trainer.devices": ranks,
        "--trainer.enable_progress_bar": "false",
        "--trainer.enable_model_summary": "false",
        "--trainer.strategy.plan": plan,
        "--model.system.item_kernel": kernel,
    }
    words = [str(word) for pair in options.items() for word in pair]
    assert on_ranks(ranks, main, args=["fit", *words]) == [0] * ranks
    return runs / "default" / str(ranks)


def metrics(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return found


def loss(run: Path) -> float:
    """Of the epoch, contrast and intent included."""
    lines = csv.DictReader((run / "metrics.csv").open())
    (found,) = [float(line["train_loss_epoch"]) for line in lines if line["train_loss_epoch"]]
    return found


def test_every_system_of_the_paper_has_a_file() -> None:
    assert PAPER.keys() <= {model.stem for model in MODELS}


@pytest.fixture(scope="module")
def alone(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """`alone(model)` is the folder of a run on one rank; do not write to it."""
    runs = tmp_path_factory.mktemp("alone")
    return cache(lambda model: fitted(1, model, dataset, runs / model.stem))


@pytest.mark.parametrize("model", MODELS, ids=[model.stem for model in MODELS])
def test_a_model_file_trains_its_system(model: Path, alone: Callable[[Path], Path]) -> None:
    run = alone(model)
    assert 0 < metrics(run)["auc"] < 1
    assert metrics(run)["global_step"] == 6
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["display"]["title"] == yaml.safe_load(model.read_text())["display"]["title"]
    if model.stem in PAPER:
        name, switches = PAPER[model.stem]
        assert saved["model"]["system"]["class_path"] == f"lightning_ccn.models.{name}"
        assert switches.items() <= saved["model"]["system"]["init_args"].items()


# one without sequences, one with contrast, one with a pairwise loss, one with losses of its own, one with times; the
# others go the same ways
FAST = ("wide_deep", "ccn", "best", "crrn", "dei2n")


@pytest.mark.parametrize(
    "model", [pytest.param(m, marks=[] if m.stem in FAST else [pytest.mark.slow], id=m.stem) for m in MODELS]
)
def test_two_ranks_learn_what_one_does(
    model: Path, alone: Callable[[Path], Path], dataset: Path, tmp_path: Path
) -> None:
    one, two = alone(model), fitted(2, model, dataset, tmp_path)
    assert loss(two) == pytest.approx(loss(one), rel=1e-5)
    found, expected = metrics(two), metrics(one)
    assert (found["world_size"], expected["world_size"]) == (2, 1)
    for metric in expected.keys() - OF_THE_RUN:
        assert found[metric] == pytest.approx(expected[metric], rel=1e-3), metric
    plan = json.loads((two / "plan.json").read_text())["tables"]
    assert plan["item"]["placement"] == "row_wise"


def test_unpooled_lookups_learn_what_bags_do(alone: Callable[[Path], Path], dataset: Path, tmp_path: Path) -> None:
    (model,) = (model for model in MODELS if model.stem == "ccn")
    both = '{"item": "row_wise", "user": "row_wise"}'
    one, two = alone(model), fitted(2, model, dataset, tmp_path, plan=both, kernel="sequence")
    kernels = {name: table["kernel"] for name, table in json.loads((two / "plan.json").read_text())["tables"].items()}
    assert set(kernels.values()) == {"sequence"}
    assert loss(two) == pytest.approx(loss(one), rel=1e-5)
    assert metrics(two)["auc"] == pytest.approx(metrics(one)["auc"], rel=1e-3)
