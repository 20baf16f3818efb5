"""Files of conf/model on the command line: displayed, resumed, fine-tuned, used for prediction.

Training is tested in tests/training/test_ranks.py, on every file.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq
import pytest
import yaml

from lightning_ccn.cli import main
from lightning_ccn.models import CCN
from lightning_ccn.training.display import Family

MODELS = Path(__file__).parents[2] / "conf" / "model"
ABLATIONS = MODELS.parent / "ablation"
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false", "--data.workers", "0"]


def ccn(command: str, folder: Path, runs: Path, run_id: str, model: str, *options: str) -> Path:
    """Runs a command; returns its run folder."""
    place = ["--runs", str(runs), "--experiment", "test", "--run_id", run_id]
    config = ["--config", str(MODELS / f"{model}.yaml"), "--data.batch_pages", "32"]
    assert main([command, "--data.folder", str(folder), *place, *QUIET, *config, *options]) == 0
    return runs / "test" / run_id


def metrics(run: Path) -> dict[str, Any]:
    """The run's final metrics, except for times."""
    found = json.loads((run / "metrics.json").read_text())
    return {name: value for name, value in found.items() if "seconds" not in name and "per_second" not in name}


@pytest.mark.parametrize("path", [*MODELS.glob("*.yaml"), *ABLATIONS.glob("*.yaml")], ids=lambda path: path.stem)
def test_every_file_says_how_its_system_is_displayed(path: Path) -> None:
    display = yaml.safe_load(path.read_text())["display"]
    assert display["title"]
    assert display["family"] in get_args(Family)


def test_titles_differ() -> None:
    files = [*MODELS.glob("*.yaml"), *ABLATIONS.glob("*.yaml")]
    assert len({yaml.safe_load(path.read_text())["display"]["title"] for path in files}) == len(files)


def test_ccn_without_a_file_is_the_ccn_of_its_file() -> None:
    model = yaml.safe_load((MODELS / "ccn.yaml").read_text())["model"]
    defaults = inspect.signature(CCN).parameters
    options = model["system"]["init_args"]
    assert options == {name: defaults[name].default for name in options}
    assert [*model] == ["system"]  # nothing else, such as auxiliary_start, which is the class's too


@pytest.mark.parametrize(
    "model",
    [
        "wide_deep",
        "din",
        pytest.param("sim", marks=pytest.mark.slow),  # saves no other kind of state than the others
        pytest.param("dihn", marks=pytest.mark.slow),
        "dian",
    ],
)
def test_a_system_resumes_is_fine_tuned_and_predicts(model: str, dataset: Path, tmp_path: Path) -> None:
    options = ["--trainer.max_epochs", "2", "--checkpoint.save_top_k", "-1"]
    options += ["--model.system.activation", "dice"] if model == "din" else []  # it has buffers to save
    whole = ccn("fit", dataset, tmp_path, "whole", model, *options)
    middle, last = whole / "checkpoints" / "epoch=0-step=3.ckpt", whole / "checkpoints" / "last.ckpt"

    resumed = ccn("fit", dataset, tmp_path, "resumed", model, *options, "--ckpt_path", str(middle))
    assert metrics(resumed) == metrics(whole)

    tuned = ccn("fit", dataset, tmp_path, "tuned", model, *options, "--finetune", str(last))
    assert metrics(tuned)["global_step"] == 6

    ccn("predict", dataset, tmp_path, "scores", model, *options[4:], "--ckpt_path", str(last))
    scores = pq.read_table(tmp_path / "test" / "scores" / "predictions")["probability"].to_pylist()
    assert len(scores) == metrics(whole)["items"]
    assert all(0 < probability < 1 for probability in scores)
