"""`ccn fit --help`: this project's systems and options in under 200 lines; `--help_all` has the rest."""

from __future__ import annotations

import re

import pytest

from lightning_ccn.cli import main
from lightning_ccn.training.short_help import GROUPS, system_names


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["fit", "predict", "plan"])  # validate and test are as predict
def test_the_help_of_a_run_is_short_and_names_what_most_runs_set(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(capsys, command, "--help")
    lines = text.splitlines()
    assert lines[0].startswith(f"usage: ccn {command} ")
    assert len(lines) < 150
    assert max(len(line) for line in lines) <= 110
    for system in system_names():
        assert re.search(rf"^  {system} +\S", text, re.MULTILINE), system
    for option in ("--data.folder", "--model.lr", "--trainer.max_epochs", "--trainer.strategy.table_lr", "--help_all"):
        assert re.search(rf"^  {re.escape(option)}\b", text, re.MULTILINE), option
    assert "EmbeddingBagCollection" not in text


def test_every_option_of_the_short_help_exists(capsys: pytest.CaptureFixture[str]) -> None:
    known = set(re.findall(r"--[\w.]+", shown(capsys, "fit", "--help_all") + shown(capsys, "plan", "--help_all")))
    planned = {"--same_ids"}  # with the checks of identity
    assert {option for group in GROUPS.values() for option in group} - planned <= known
    assert "--trainer.detect_anomaly" in known
    assert "--trainer.detect_anomaly" not in shown(capsys, "fit", "--help")


def test_the_values_and_defaults_are_those_of_the_signatures(capsys: pytest.CaptureFixture[str]) -> None:
    words = " ".join(shown(capsys, "fit", "--help").split())
    assert "--new_rows {unknown,category,drawn} start of the rows" in words
    assert "--test_after_fit {true,false} test the fitted model (default: true)" in words
    assert "--model.lr initial learning rate of the dense layers (default: 0.02)" in words
    assert "--checkpoint.mode min or max; auto: the direction of the metric (default: auto)" in words


def test_a_system_explains_its_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "fit", "--model.system.help", "CCN")
    assert "--model.system.temperature" in text
    assert "--help_all" not in text
