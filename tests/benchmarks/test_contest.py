"""The two ends of a turn."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from benchmarks.bench import rounds
from benchmarks.contest import Contestant

PROGRAM = """
import os, sys
from benchmarks.turns import Turns
turns = Turns(int(sys.argv[1]), "cpu")
rank = int(os.environ.get("LOCAL_RANK", "0"))
for word, arguments in turns.ready(threads=os.environ["OMP_NUM_THREADS"], feed_mib=0):
    if word == "fail":
        sys.exit("the words of the failure")
    turns.answer(seconds=1.0 + rank, items=arguments.get("steps", 0) * 10, steps=arguments.get("steps", 0), rank=rank)
"""


@contextmanager
def contestant(folder: Path, name: str = "one", ranks: int = 1) -> Iterator[Contestant]:
    made = Contestant(name, [sys.executable, "-c", PROGRAM, "{pipe}"], folder, threads=3, ranks=ranks)
    with ExitStack() as stack:
        stack.callback(made.stop)
        made.start()
        yield made


def test_a_contestant_has_its_threads_and_answers_with_its_peak_memory(tmp_path: Path) -> None:
    with contestant(tmp_path) as one:
        assert one.wait()["threads"] == "3"
        answer = one.ask("epoch", steps=4)
    assert (answer["seconds"], answer["items"], answer["steps"]) == (1.0, 40, 4)
    assert 1 < answer["peak_mib"] < 10_000


def test_answers_of_ranks_are_added_up(tmp_path: Path) -> None:
    with contestant(tmp_path, ranks=2) as one:
        one.wait()
        answer = one.ask("epoch", steps=4)
    assert (answer["seconds"], answer["items"], answer["steps"]) == (1.0 + 2.0, 80, 4)


def test_a_contestant_that_ends_is_named_with_its_last_words(tmp_path: Path) -> None:
    with contestant(tmp_path, "unlucky") as one:
        one.wait()
        with pytest.raises(RuntimeError, match=r"(?s)unlucky ended.*the words of the failure"):
            one.ask("fail")


def test_all_take_turns_round_after_round(tmp_path: Path) -> None:
    made = {name: Contestant(name, [sys.executable, "-c", PROGRAM, "{pipe}"], tmp_path) for name in ("a", "b")}
    turns = {"short": ("epoch", {"steps": 1}), "long": ("epoch", {"steps": 2})}
    found = rounds({name: (one, turns) for name, one in made.items()}, 3, last={"b": (("steps", {"steps": 5}),)})
    assert {name: [len(answers) for answers in one["turns"].values()] for name, one in found.items()} == {
        "a": [3, 3],
        "b": [3, 3],
    }
    assert [answer["items"] for answer in found["a"]["turns"]["long"]] == [20, 20, 20]
    assert found["b"]["steps"] == 5
    assert "steps" not in found["a"]
