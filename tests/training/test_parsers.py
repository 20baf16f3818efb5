"""Options that cannot be read: one line, from the real parsers."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_ccn.cli import main
from lightning_ccn.conf_files import CONF

FIT = ("fit", "--data.folder", "anywhere")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (
            (*FIT, "--model.system", "CNC"),
            "--model.system: there is no class CNC; lightning_ccn.models has CCN, CRRN, DEI2N, DIAN, DIHN, "
            "DIN, SIM, TAN, WideDeep; `ccn fit --help` explains",
        ),
        (
            (*FIT, "--model.system", "lightning_ccn.models.CNC"),
            "--model.system: module 'lightning_ccn.models' has no attribute 'CNC'; lightning_ccn.models has CCN, CRRN, "
            "DEI2N, DIAN, DIHN, DIN, SIM, TAN, WideDeep; `ccn fit --help` explains",
        ),
        (
            (*FIT, "--model.system.temprature", "3"),
            "--model.system: Option 'temprature' is not accepted; `ccn fit --help` explains",
        ),
        (
            (*FIT, "--trainer.strategy.init_args.plna", "x"),
            "--trainer.strategy: Problem with given class_path 'lightning_ccn.TorchRecStrategy': Option 'plna' is not "
            "accepted; `ccn fit --help` explains",
        ),
        (
            (*FIT, "--trainer.max_epohcs", "3"),
            "unrecognized arguments: --trainer.max_epohcs 3; did you mean --trainer.max_epochs? "
            "`ccn fit --help` explains",
        ),
        ((*FIT, "--model.lr", "abc"), "--model.lr: expected float, not abc; `ccn fit --help` explains"),
        (
            (*FIT, "--trainer.max_epochs", "x"),
            "--trainer.max_epochs: expected int, not x; `ccn fit --help` explains",
        ),
        (
            (*FIT, "--new_rows", "foo"),
            "--new_rows: expected one of ['unknown', 'category', 'drawn'], not foo; `ccn fit --help` explains",
        ),
        (("fit",), "the following arguments are required: --data.folder; `ccn fit --help` explains"),
        (("plan",), "the following arguments are required: --data.folder; `ccn plan --help` explains"),
        (
            (*FIT, "--model.system.dim", "x"),
            "--model.system.dim: expected int, not x; `ccn fit --help` explains",
        ),
        (
            (*FIT, "--trainer.callbacks", "x.y"),
            "--trainer.callbacks: Problem with given class_path 'x.y': No module named 'x'; `ccn fit --help` explains",
        ),
        (
            ("plan", "--data.foldr", "x"),
            "unrecognized arguments: --data.foldr x; did you mean --data.folder? `ccn plan --help` explains",
        ),
        ((*FIT, "--zzz", "3"), "unrecognized arguments: --zzz 3; `ccn fit --help` explains"),
        (
            (*FIT, "--trainer.callbacks", "EarlyStopping"),
            "--trainer.callbacks: Problem with given class_path 'lightning.pytorch.callbacks.EarlyStopping': the "
            "following arguments are required: monitor; `ccn fit --help` explains",
        ),
        (
            (*FIT, "--trainer.deterministic", "maybe"),
            "--trainer.deterministic: expected bool or expected one of ['warn'], not maybe; `ccn fit --help` explains",
        ),
        (
            (*FIT, "--trainer.plugins", "foo"),
            "--trainer.plugins: there is no class foo or expected list, not foo; `ccn fit --help` explains",
        ),
        (("data", "world"), "the following arguments are required: folder; `ccn data world --help` explains"),
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


def test_a_config_file_of_the_package_is_found_from_any_folder(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["plan", "--data.folder", str(dataset), "--config=conf/experiment/default.yaml"]
    assert main([*words, "-c", "conf/model/tan.yaml"]) == 0
    assert "it fits" in capsys.readouterr().out
    assert not (tmp_path / "conf").exists() and (CONF / "experiment" / "default.yaml").exists()


def test_a_config_file_that_the_package_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main([*FIT, "--config", "conf/nowhere.yaml"])
    assert "ccn: error: --config: File does not exist: " in capsys.readouterr().err
