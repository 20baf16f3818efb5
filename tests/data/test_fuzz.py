"""Damaged folders: `ccn data check` and the reader agree, in words, and neither fails in another way nor hangs.

`make test ARGS="-m large tests/data/test_fuzz.py"` tries 500 folders, `make test` the first 60.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_ccn.data.check.check import check
from lightning_ccn.data.dataset import SPLITS, Dataset
from lightning_ccn.data.reader import PageBatches
from lightning_ccn.errors import DataError
from tests.conftest import write_dataset
from tests.data.mutations import mutate

PAGES = {"train": 24, "validation": 8, "test": 8}
SECONDS = 20  # a folder takes a few hundredths


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("fuzz") / "whole", pages=PAGES, numbers=("price",))


@contextmanager
def a_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"no answer in {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def in_words(text: str, folder: Path) -> None:
    """A message is one line that names a file or a place in it."""
    assert "\n" not in text, text
    assert str(folder) in text or text.startswith(("page_id ", "... and ")), text


def read_all(folder: Path, split: str) -> int:
    """Reads a split as training does; returns the number of pages with items."""
    batches = PageBatches(
        Dataset.open(folder), split, batch_pages=8, short_length=3, long_length=3, with_clicks=split != "test"
    )
    found = 0
    for step in range(len(batches)):
        batch = batches[0, step]
        found += int((batch.page_lengths > 0).sum())
        assert torch.isfinite(batch.numbers).all()
        for name, table in (("target", batch.item), ("short", batch.item)):
            assert (getattr(batch, name) < table.stride()).all()
    return found


def try_one(whole: Path, folder: Path, seed: int) -> None:
    rng = np.random.default_rng([7, seed])
    shutil.copytree(whole, folder, symlinks=True)
    done = mutate(rng, folder)
    try:
        compare_check_and_reader(folder, rng)
    except Exception as error:
        raise AssertionError(f"seed {seed} ({done}): {type(error).__name__}: {error}") from error


def compare_check_and_reader(folder: Path, rng: np.random.Generator) -> None:
    report = check(folder, write_stats=bool(rng.random() < 0.7))
    assert str(report)
    for line in (*report.errors, *report.warnings):
        in_words(line, folder)
    if not report.errors:
        again = check(folder)
        assert again.errors == [], again.errors
    for split in SPLITS:
        refusal = None
        try:
            assert read_all(folder, split) <= report.splits[split].pages or report.errors
        except DataError as error:
            refusal = str(error)
        if refusal is not None:
            in_words(refusal, folder)
            assert report.errors or not report.splits[split].pages, f"valid, but {split} is refused: {refusal}"


@pytest.mark.parametrize(
    "seeds", [range(60), pytest.param(range(60, 560), marks=pytest.mark.large)], ids=["few", "many"]
)
@pytest.mark.filterwarnings("error")
def test_a_damaged_folder_is_refused_in_words_or_read(whole: Path, tmp_path: Path, seeds: range) -> None:
    failed = []
    for seed in seeds:
        folder = tmp_path / f"d{seed}"
        try:
            with a_limit():
                try_one(whole, folder, seed)
        except AssertionError as error:  # all of them, so that one failure does not hide the others
            failed.append(str(error))
        shutil.rmtree(folder, ignore_errors=True)
    assert not failed, "\n".join(failed)
