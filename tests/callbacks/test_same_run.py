"""The options that a run continues with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lightning_ccn.callbacks.same_run import KEY, check_same_run, deciding
from lightning_ccn.errors import OptionError

OPTIONS: dict[str, Any] = {
    "seed_everything": 0,
    "model": {"lr": 0.02, "optimizer": None, "system": {"class_path": "TAN", "init_args": {"dim": 8}}},
    "data": {"folder": "here", "batch_pages": 64, "seed": 0, "workers": 1},
    "trainer": {
        "max_epochs": 1,
        "devices": 2,
        "precision": None,
        "plugins": None,
        "callbacks": None,
        "strategy": {"init_args": {"table_lr": 0.05, "plan": None}},
    },
}


def check(now: dict[str, Any], before: dict[str, Any] = OPTIONS) -> None:
    check_same_run(Path("last.ckpt"), {KEY: deciding(before)}, now)


def changed(path: str, value: Any, options: dict[str, Any] = OPTIONS) -> dict[str, Any]:
    name, _, rest = path.partition(".")
    return {**options, name: changed(rest, value, options[name]) if rest else value}


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("data.batch_pages", 128, "data.batch_pages was 64, and is 128"),
        ("data.seed", 1, "data.seed was 0, and is 1"),
        ("model.lr", 0.5, r"model.lr was 0.02, and is 0.5"),
        ("trainer.strategy.init_args.table_lr", 0.5, "table_lr was 0.05, and is 0.5"),
        ("model.system", {"class_path": "DIN", "init_args": {"dim": 8}}, "class_path was TAN, and is DIN"),
        ("model.system.init_args.dim", 16, "dim was 8, and is 16"),
        ("model.optimizer", {"class_path": "Adam"}, "model.optimizer.class_path was None, and is Adam"),
        ("seed_everything", 1, "seed_everything was 0, and is 1"),
        ("trainer.precision", "bf16-mixed", "trainer.precision was 32-true, and is bf16-mixed"),
        ("trainer.plugins", [{"class_path": "Half"}], r"trainer.plugins was None, and is \[\{'class_path': 'Half'\}\]"),
    ],
)
def test_an_option_that_decides_what_is_learned_may_not_change(name: str, value: Any, told: str) -> None:
    with pytest.raises(OptionError, match=rf"{told}\. Continue with the same options, or .* --finetune last.ckpt"):
        check(changed(name, value))
    with pytest.raises(OptionError, match="is of a run with other options"):  # and not back either
        check(OPTIONS, before=changed(name, value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data.folder", "copied/elsewhere"),  # digests of its files are compared
        ("data.workers", 0),
        ("trainer.devices", 16),
        ("trainer.max_epochs", 3),
        ("trainer.precision", "32"),  # another word for the default
        ("trainer.callbacks", [{"class_path": "EarlyStopping"}]),
        ("trainer.strategy.init_args.plan", {"item": "row_wise"}),
    ],
)
def test_where_and_how_long_it_runs_may_change(name: str, value: Any) -> None:
    check(changed(name, value))


def test_an_option_of_a_newer_version_is_no_difference() -> None:
    newer = {**OPTIONS, "data": {**OPTIONS["data"], "half": False}}
    check(newer)
    check(OPTIONS, before=newer)


def test_a_checkpoint_without_options_says_nothing() -> None:
    check_same_run(Path("last.ckpt"), {}, OPTIONS)
