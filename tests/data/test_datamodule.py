"""`PageData`: which options fit a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_ccn.data.cut_folder import cut_folder
from lightning_ccn.data.datamodule import PageData
from lightning_ccn.errors import OptionError


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
