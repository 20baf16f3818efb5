"""Where the checks of this folder run: on a GPU if there is one, and in rehearsal on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightning_ccn.cli import main

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU that torch can use")
KNOBS = ["--users", "300", "--items", "400", "--train_pages", "640", "--validation_pages", "64", "--test_pages", "64"]


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=[pytest.mark.gpu, needs_gpu])])
def accelerator(request: pytest.FixtureRequest) -> str:
    """Of Lightning: `cpu`, the rehearsal, which CI runs, and `gpu`."""
    name: str = request.param
    return name


@pytest.fixture
def device(accelerator: str) -> torch.device:
    """torch's name of the accelerator's first device."""
    return torch.device("cuda", 0) if accelerator == "gpu" else torch.device("cpu")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic world, whose test reports its bounds."""
    folder = tmp_path_factory.mktemp("gpu") / "world"
    assert main(["data", "world", str(folder), *KNOBS]) == 0
    return folder
