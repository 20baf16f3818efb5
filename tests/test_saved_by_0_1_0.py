"""What version 0.1.0 saved still loads: its config.yaml, and a checkpoint from between two epochs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lightning_ccn.cli import main
from tests.conftest import write_dataset

SAVED = Path(__file__).parent / "saved_by_0_1_0"  # trained on `write_dataset`'s folder, on one CPU rank


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the saved paths are relative to, with the data that the run was trained on."""
    write_dataset(tmp_path / "dataset", numbers=("price",), tags=0, image=0)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_resumed_run_ends_with_the_numbers_that_the_undisturbed_one_had(here: Path) -> None:
    checkpoint = str(SAVED / "epoch0.ckpt")
    assert main(["fit", "--config", str(SAVED / "config.yaml"), "--ckpt_path", checkpoint]) == 0
    resumed = json.loads((here / "runs" / "saved" / "run" / "metrics.json").read_text())
    whole = json.loads((SAVED / "metrics.json").read_text())
    numbers = {name for name in whole if not name.startswith("train_")}  # but for times
    assert {name: resumed[name] for name in numbers} == pytest.approx({n: whole[n] for n in numbers}, abs=1e-6)


def test_its_system_has_the_options_of_then(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(SAVED / "config.yaml"), "--print_config"])
    model = yaml.safe_load(capsys.readouterr().out)["model"]
    assert model["system"]["init_args"]["head_reads"] == "degree"
    assert model["system"]["init_args"]["attraction_pairs"] == "all"
    assert model["auxiliary_start"] == 1


def test_a_fine_tune_starts_from_its_weights(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, checkpoint = str(SAVED / "config.yaml"), str(SAVED / "epoch0.ckpt")
    assert main(["fit", "--config", config, "--run_id", "tuned", "--finetune", checkpoint]) == 0
    assert "NOT loaded" not in capsys.readouterr().err
