"""Logs with a missing input: every system warns what it does without it and trains, or rejects the data."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from lightning_ccn.cli import main
from lightning_ccn.data.check.check import check
from lightning_ccn.data.dataset import Dataset, SplitStats
from lightning_ccn.data.reader import PageBatches
from lightning_ccn.models import CCN

from .pages import SYSTEMS, Planted, learn, loss, planted


def no_triggers(pages: Planted) -> Planted:
    return replace(pages, trigger=np.zeros_like(pages.trigger))


def no_categories(pages: Planted) -> Planted:
    return replace(pages, schema=replace(pages.schema, category=None))


def no_profile(pages: Planted) -> Planted:
    return replace(pages, schema=replace(pages.schema, user=()))


def no_short_sequences(pages: Planted) -> Planted:
    return replace(pages, short=pages.short[:, :0])


def no_long_sequences(pages: Planted) -> Planted:
    return replace(pages, long=pages.long[:, :0])


def one_click_a_page(pages: Planted) -> Planted:
    return replace(pages, clicks=np.eye(6, dtype=np.int64)[pages.user % 6])


def one_label_a_page(pages: Planted) -> Planted:
    return replace(pages, clicks=np.repeat(pages.mood[:, None] % 2, 6, axis=1))


# what is missing -> the note of `ccn data check`, and each system's warning
TRIGGERED = ("dihn", "dian", "tan_bare", "tan", "ccn", "crrn", "dei2n")
SEARCHING = ("sim", *TRIGGERED)
MISSING: dict[Callable[[Planted], Planted], tuple[str | None, dict[str, str]]] = {
    no_triggers: (
        "no page with a trigger",
        dict.fromkeys(TRIGGERED, "has no page with a trigger; every page gets the unknown item as its trigger"),
    ),
    no_categories: (
        None,
        dict.fromkeys(SEARCHING, "has no category; the search returns the most recent long behaviours of any category")
        | dict.fromkeys(("dihn", "dian", "crrn"), "has no category; the intent has no label")
        | {"dei2n": "has no category; the hard sequence has the most recent long behaviours of any category"},
    ),
    no_profile: (None, {"wide_deep": "has no profile feature of one value; .* the model has no wide part"}),
    no_short_sequences: (
        "no page with short behaviours",
        dict.fromkeys(SYSTEMS, "has no page with short behaviours; .* zeros"),
    ),
    no_long_sequences: (
        "no page with long behaviours",
        dict.fromkeys(SEARCHING, "has no page with long behaviours; .* zeros"),
    ),
    one_click_a_page: (
        "no page with two clicked items",
        {"ccn": "has no page with two clicked items; the attraction loss only pulls unclicked items together"},
    ),
    one_label_a_page: ("no page with both clicked and unclicked items", {}),
}
REFUSED = ("ccn", one_label_a_page)
PAIRS = [(name, missing) for missing in MISSING for name in SYSTEMS if (name, missing) != REFUSED]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[Planted], Planted]], Path]:
    """The dataset folder from which an input is missing."""
    folders = tmp_path_factory.mktemp("missing")

    @cache
    def write(missing: Callable[[Planted], Planted]) -> Path:
        return missing(planted(1, pages=50)).write(folders / missing.__name__)

    return write


@pytest.mark.parametrize("missing", MISSING)
def test_a_check_of_the_folder_notes_it(missing: Callable[[Planted], Planted], folder_of: Callable[..., Path]) -> None:
    folder, (words, _) = folder_of(missing), MISSING[missing]
    report = check(folder)
    assert report.errors == []
    assert report.notes == ([f"{folder / 'train'}: {words}"] if words else [])


@pytest.mark.parametrize(("name", "missing"), PAIRS, ids=[f"{name}-{missing.__name__}" for name, missing in PAIRS])
def test_every_system_says_what_it_does_without_and_trains(
    name: str,
    missing: Callable[[Planted], Planted],
    folder_of: Callable[..., Path],
    recwarn: pytest.WarningsRecorder,
) -> None:
    reader = PageBatches(
        Dataset.open(folder_of(missing)), "train", batch_pages=50, short_length=5, long_length=5, with_gaps=True
    )
    system = SYSTEMS[name](reader.dataset, dim=8)
    said = [str(warning.message) for warning in recwarn]
    _, words = MISSING[missing]
    assert len(said) == (name in words)
    if name in words:
        assert re.match(rf"{type(system).__name__}: the (dataset|training split) {words[name]}", said[0])
    batch = reader[0, 0]
    before = loss(system, batch)
    before.backward()
    for parameter, value in system.named_parameters():  # DDP waits for the gradient of each
        assert value.grad is not None and value.grad.isfinite().all(), parameter
    learn(system, batch, steps=5)
    assert loss(system, batch) < before


def test_a_fit_says_it_once_and_ends_with_metrics(
    folder_of: Callable[..., Path], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    place = ["--data.folder", str(folder_of(no_triggers)), "--runs", str(tmp_path), "--run_id", "r"]
    assert main(["fit", *place, "--data.workers", "0", "--trainer.enable_progress_bar", "false"]) == 0
    assert len([warning for warning in recwarn if "no page with a trigger" in str(warning.message)]) == 1
    assert (tmp_path / "default" / "r" / "metrics.json").exists()


def test_ccn_refuses_a_log_without_anything_to_contrast(
    folder_of: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--data.folder", str(folder_of(one_label_a_page)), "--runs", str(tmp_path)]
    assert main(["fit", *place, "--data.workers", "0"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "no page with both clicked and unclicked items, so CCN has nothing to contrast" in line
    assert "train TAN" in line


def test_a_folder_without_training_pages_is_scored_in_silence(recwarn: pytest.WarningsRecorder) -> None:
    dataset = planted(1, pages=20).dataset
    dataset.splits["train"] = SplitStats()
    for make in SYSTEMS.values():
        make(dataset, dim=8)
    assert CCN(dataset, dim=8).attraction_ratio is None
    assert not recwarn.list


@pytest.mark.parametrize("make", SYSTEMS.values(), ids=list(SYSTEMS))
def test_a_system_that_lacks_nothing_says_nothing(
    make: Callable[..., nn.Module], recwarn: pytest.WarningsRecorder
) -> None:
    make(planted(1, pages=20).dataset, dim=8)
    assert not recwarn.list
