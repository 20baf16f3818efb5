"""The words of a command before a parser sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_ccn.training.words import given, in_order

NAMES = ("run_id", "data.folder")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ("fit --model.lr 1 --config a --x y -c b", "fit --config a -c b --model.lr 1 --x y"),
        ("--world_size 2 --config=a -cb", "--config=a -cb --world_size 2"),
        ("fit --config", "fit --config"),
        ("fit --a.b 1 --x -1 --a.b.c 2 --a.b=K --a.bc 3", "fit --a.b 1 --x -1 --a.b=K --a.b.c 2 --a.bc 3"),
        ("fit", "fit"),
        ("fit --a.c 1 --a.init_args.c 2 --a.class_path K", "fit --a.class_path K --a.c 1 --a.init_args.c 2"),
        ("fit --a.class_path K --a L --a.class_path=M", "fit --a.class_path K --a L --a.class_path=M"),
        ("", ""),
    ],
)
def test_files_come_first_and_classes_before_their_options(args: str, expected: str) -> None:
    assert in_order(args.split()) == expected.split()


def test_an_empty_value_stays() -> None:
    assert in_order(["fit", "--a.b", "", "--a", ""]) == ["fit", "--a", "", "--a.b", ""]


def test_an_option_beats_the_last_file_that_sets_it(tmp_path: Path) -> None:
    for name, text in (("a", "{run_id: a, data: {folder: x}}"), ("b", "run_id: b"), ("broken", "{")):
        (tmp_path / f"{name}.yaml").write_text(text)
    a, b, broken = (str(tmp_path / f"{name}.yaml") for name in ("a", "b", "broken"))
    assert given(["fit", "-c", a, f"--config={b}", "--config", broken], NAMES) == {"run_id": "b", "data.folder": "x"}
    assert given(["fit", "--run_id", "c", "-c", a], NAMES) == {"run_id": "c", "data.folder": "x"}
    assert given(["fit", "--run_id=null", "-c", "{data: {folder: y}}"], NAMES) == {"run_id": None, "data.folder": "y"}
    assert given(["fit", "--run_i", "c", "-c", "nowhere.yaml"], NAMES) == {}
