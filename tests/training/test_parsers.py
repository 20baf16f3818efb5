"""Options that cannot be read: one line, from the real parsers."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_ccn.cli import main

FIT = ("fit", "--data.folder", "anywhere")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (
            (*FIT, "--model.system", "CNC"),
            "--model.system: there is no class 'CNC'; lightning_ccn.models has CCN, DIAN, DIHN, DIN, SIM, TAN, "
            "WideDeep; `ccn fit --help` explains",
        ),
        (
            (*FIT, "--model.system", "lightning_ccn.models.CNC"),
            "--model.system: module 'lightning_ccn.models' has no attribute 'CNC'; lightning_ccn.models has CCN, DIAN, "
            "DIHN, DIN, SIM, TAN, WideDeep; `ccn fit --help` explains",
        ),
        (
            (*FIT, "--model.system.temprature", "3"),
            "--model.system: Option 'temprature' is not accepted; `ccn fit --help` explains",
        ),
        (
            (*FIT, "--trainer.strategy.init_args.plna", "x"),
            "--trainer.strategy: TorchRecStrategy: Option 'plna' is not accepted; `ccn fit --help` explains",
        ),
        (
            (*FIT, "--trainer.max_epohcs", "3"),
            "unrecognized arguments: --trainer.max_epohcs 3; `ccn fit --help` explains",
        ),
        ((*FIT, "--model.lr", "abc"), "--model.lr: expected float, not abc; `ccn fit --help` explains"),
        (
            (*FIT, "--trainer.max_epochs", "x"),
            "--trainer.max_epochs: expected int, not x; `ccn fit --help` explains",
        ),
        (
            (*FIT, "--new_rows", "foo"),
            "--new_rows: expected one of 'unknown', 'category', 'drawn', not foo; `ccn fit --help` explains",
        ),
        (("fit",), "the following arguments are required: --data.folder; `ccn --help` explains"),
        (("plan", "--data.foldr", "x"), "unrecognized arguments: --data.foldr x; `ccn plan --help` explains"),
        (("data", "world"), "the following arguments are required: folder; `ccn data --help` explains"),
        (("data", "world", "w", "--seed", "x"), "--seed: expected int, not x; `ccn data world --help` explains"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else "",
)
def test_it_is_one_line_that_names_the_option(
    args: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(list(args))
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"ccn: error: {line}\n"


def test_a_config_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(tmp_path / "nowhere.yaml")])
    assert f"ccn: error: --config: File does not exist: '{tmp_path / 'nowhere.yaml'}'" in capsys.readouterr().err
