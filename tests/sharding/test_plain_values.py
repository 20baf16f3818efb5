"""The trainer's part of a checkpoint has plain values only, and comes back as it was saved."""

from __future__ import annotations

import enum
import io
import os
from collections import Counter, OrderedDict, defaultdict, namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from lightning_ccn.sharding import ShardingError, TorchRecStrategy, load_unsharded, read_trainer_state
from lightning_ccn.sharding.plain_values import encode, plain, read_plain
from tests.sharding.dlrm import DLRM, Loader
from tests.sharding.ranks import on_ranks
from tests.sharding.runs import make_model, make_trainer


class Mode(str, enum.Enum):  # noqa: UP042  # its `str` is not its text
    MAX = "max"


Pair = namedtuple("Pair", "first second")

KEPT: dict[str, Any] = {
    "numbers": [0, -1, 10**30, 1.5, float("inf"), True, None, 1 + 2j],
    "text": ("a", "\u00e9", b"bytes", bytearray(b"x")),
    "nested": {"a": {"b": [{"c": ()}]}, 1: "a number as key", (1, "x"): "a pair as key"},
    "set": {1, 2},
    "milestones": Counter({3: 1}),  # of MultiStepLR, which counts with it
    "ordered": OrderedDict(b=1, a=2),
    "torch": [torch.float16, torch.device("cpu")],
}


def again(value: Any) -> Any:
    return read_plain(io.BytesIO(encode({"value": value})))["value"]


def test_plain_values_come_back_with_their_types() -> None:
    back = again(KEPT)
    assert back == KEPT
    assert type(back["milestones"]) is Counter
    assert type(back["ordered"]) is OrderedDict
    assert torch.equal(again(torch.arange(3)), torch.arange(3))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Path("a/b"), "a/b"),
        (Mode.MAX, "max"),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (defaultdict(int, a=1), {"a": 1}),
        (Pair(1, 2), (1, 2)),
        (torch.Size([2, 3]), (2, 3)),
        (frozenset({1}), {1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_a_plain_form_is_saved_in_it(value: Any, expected: Any) -> None:
    back = again([value])[0]
    assert back == expected
    assert type(back) is type(expected)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            {"callbacks": {"Mine": {"model": torch.nn.Linear(1, 1)}}},
            "callbacks.Mine.model is a torch.nn.modules.linear",
        ),
        ({"hyper_parameters": {"cls": [int]}}, r"hyper_parameters.cls\[0\] is a type"),
        ({"callbacks": {"Mine": {"key": {Path: 1}}}}, "the key <class .*> of callbacks.Mine.key is a type"),
        ({"a": (1, lambda: 0)}, r"a\[1\] is a function"),
        ({"a": np.zeros(2)}, "a is a numpy.ndarray"),
    ],
)
def test_anything_else_is_refused_with_its_place_and_the_remedy(value: Any, words: str) -> None:
    with pytest.raises(ShardingError, match=words) as error:
        plain(value, "")
    assert "put numbers, text, lists, dicts or tensors in its place, or leave it out" in str(error.value)
    assert "\n" not in str(error.value)


class Keeps(Callback):
    """A callback with a state."""

    def __init__(self, state: Any) -> None:
        self.state, self.loaded = state, None

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.loaded = state_dict["kept"]


def save_an_object(folder: str) -> str:
    """On one rank: what the first save says of a callback's state that is an object, on rank 0 only."""
    state = torch.nn.Linear(1, 1) if os.environ["LOCAL_RANK"] == "0" else 1
    strategy = TorchRecStrategy(on_failed_save="warn")  # a program's error, which waiting does not mend
    trainer = make_trainer(folder, strategy, callbacks=[Keeps(state)], save_every=1)
    try:
        trainer.fit(make_model(), Loader(3))
    except ShardingError as error:
        return f"{trainer.global_step} {error}"
    return "saved"


def test_the_first_save_refuses_an_object_on_every_rank(tmp_path: Path) -> None:
    first, second = on_ranks(2, save_an_object, folder=str(tmp_path))
    assert first == second
    assert first.startswith(
        "1 the checkpoint was not written: callbacks.Keeps.kept is a torch.nn.modules.linear.Linear"
    )


class WithExtraState(torch.nn.Module):
    """A module with an entry in its state dict that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.extra: Any = {"seen": 0}

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        self.extra = state


def with_extra_state(value: Any) -> tuple[DLRM, WithExtraState]:
    model, part = make_model(), WithExtraState()
    model.counter, part.extra = part, value
    return model, part


def extra_state(folder: str) -> Any:
    """On one rank: the extra state that a new module has after a resume, and what a save says of an object there."""
    trainer = make_trainer(folder, TorchRecStrategy(), callbacks=[Keeps({"a": (1,)})], save_every=2)
    trainer.fit(with_extra_state({"seen": 7})[0], Loader(2))
    path = str(Path(folder) / "step=2.ckpt")
    (fresh, part), keeps = with_extra_state({"seen": 0}), Keeps(None)
    trainer = make_trainer(folder, TorchRecStrategy(), callbacks=[keeps], max_epochs=2)
    trainer.fit(fresh, Loader(2), ckpt_path=path)
    with pytest.raises(ShardingError, match=r"module\.counter\._extra_state is a type"):
        make_trainer(folder, TorchRecStrategy(), save_every=1).fit(with_extra_state(int)[0], Loader(1))
    return part.extra, keeps.loaded


def test_a_modules_extra_state_and_a_callbacks_state_come_back(tmp_path: Path) -> None:
    assert on_ranks(2, extra_state, folder=str(tmp_path)) == [({"seen": 7}, {"a": (1,)})] * 2
    assert read_trainer_state(tmp_path / "step=2.ckpt")["callbacks"]["Keeps"] == {"kept": {"a": (1,)}}
    model, part = with_extra_state({"seen": 0})
    load_unsharded(tmp_path / "step=2.ckpt", model)
    assert part.extra == {"seen": 7}
