"""Options of two classes on one command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_ccn.cli import main

CCN = ["--config", "conf/model/ccn.yaml"]  # head_reads: logit, as is the default of the class
BOUNDED = ["--config", "conf/model/tan_bounded.yaml"]


def options(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """The options that a command line makes."""
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--data.folder", "f", *words, "--print_config"])
    assert not ended.value.code
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize(
    "words",
    [BOUNDED, [*CCN, *BOUNDED], [*CCN, "--model.system", "TAN", "--model.system.direct_degree", "true"]],
    ids=["after the default", "after a file", "as a word"],
)
def test_a_system_has_no_option_of_the_one_before_it(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    system = options(capsys, *words)["model"]["system"]
    assert system["class_path"] == "lightning_ccn.models.TAN"
    assert system["init_args"]["direct_degree"]
    assert system["init_args"]["head_reads"] == "degree"


def test_options_of_one_system_add_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("model: {system: {class_path: lightning_ccn.models.CCN, init_args: {gain: 3, scale: 2}}}")
    found = options(capsys, *CCN, "--config", str(own), "--model.system.gain", "5")["model"]["system"]
    assert [found["init_args"][name] for name in ("head_reads", "scale", "gain")] == ["logit", 2, 5]


def test_a_class_is_the_same_by_any_of_its_names(capsys: pytest.CaptureFixture[str]) -> None:
    short = "{trainer: {strategy: {class_path: lightning_ccn.TorchRecStrategy, init_args: {tf32: true}}}}"
    found = options(capsys, "--config", "conf/experiment/paper.yaml", "--config", short)["trainer"]["strategy"]
    assert [found["init_args"][name] for name in ("table_lr", "tf32")] == [0.001, True]


def test_nothing_of_ccn_stays_in_another_system(capsys: pytest.CaptureFixture[str]) -> None:
    alone, after = (options(capsys, *words, "--config", "conf/model/crrn.yaml")["model"] for words in ([], CCN))
    assert after == alone
