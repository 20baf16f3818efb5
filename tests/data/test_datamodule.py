"""`PageData`: which options fit a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightning_ccn.data.cut_folder import cut_folder
from lightning_ccn.data.datamodule import PageData
from lightning_ccn.errors import OptionError


@pytest.mark.parametrize(("reads_long", "expected"), [(True, 5), (False, 0)])
def test_long_behaviours_are_left_out_for_a_module_that_reads_none(
    dataset: Path, reads_long: bool, expected: int
) -> None:
    data = PageData(dataset, long_length=5)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(  # type: ignore[assignment]  # what the loaders ask of it
        lightning_module=SimpleNamespace(reads_long=reads_long), strategy=strategy, global_rank=0, world_size=1
    )
    batches = data.test_dataloader().batches
    assert batches.collator.long_length == expected
    assert ("long_items" in batches.columns) == reads_long


@pytest.mark.parametrize("reads_gaps", [True, False])
def test_times_are_read_for_a_module_that_asks(dataset: Path, reads_gaps: bool) -> None:
    data = PageData(dataset)
    data.trainer = SimpleNamespace(  # type: ignore[assignment]  # what the loaders ask of it
        lightning_module=SimpleNamespace(reads_gaps=reads_gaps),
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        global_rank=0,
        world_size=1,
    )
    assert ("short_times" in data.test_dataloader().batches.columns) == reads_gaps


def test_batches_of_validation_and_test_are_larger_by_the_factor(dataset: Path) -> None:
    one, three = PageData(dataset, batch_pages=4), PageData(dataset, batch_pages=4, evaluation_factor=3)
    for split in ("train", "predict"):
        assert getattr(three, f"{split}_dataloader")().batches.order.lane_pages == 1
    for split in ("val", "test"):
        larger, usual = (getattr(data, f"{split}_dataloader")().batches for data in (three, one))
        assert len(larger) == -(-len(usual) // 3) < len(usual)
        assert sum(larger[0, step].pages for step in range(len(larger))) == sum(
            usual[0, step].pages for step in range(len(usual))
        )


def test_a_search_for_more_than_a_folder_was_cut_to_is_refused(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    cut_folder(make_dataset(), tmp_path / "cut", long_length=5)
    assert PageData(tmp_path / "cut", long_length=5).long_length == 5
    with pytest.raises(OptionError) as error:
        PageData(tmp_path / "cut", long_length=6)
    assert str(error.value) == (
        f"data.long_length is 6, but the long sequences of {tmp_path / 'cut'} are cut to the most recent 5 behaviours "
        "of each category (cut_long_length in schema.yaml): make it 5 or less, or use the folder that this one was cut "
        "from"
    )
