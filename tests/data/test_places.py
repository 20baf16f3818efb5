"""What a name stands for: a path, or an address in a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_ccn.data.cut_folder import cut_folder
from lightning_ccn.data.new_folder import NewFolder
from lightning_ccn.data.places import is_address, on_disk, place
from lightning_ccn.data.store_path import StorePath
from lightning_ccn.errors import DataError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("data/day=1/a:b", Path("data/day=1/a:b")),
        (Path("data"), Path("data")),
        ("file:///data/world", Path("/data/world")),
        ("file:/data/world", Path("/data/world")),
        ("s3://bucket/world", StorePath("s3://bucket/world")),
        (StorePath("gs://bucket"), StorePath("gs://bucket")),
    ],
)
def test_a_name_is_a_path_or_an_address(name: str | Path | StorePath, expected: Path | StorePath) -> None:
    assert place(name) == expected


def test_an_address_is_known_also_after_it_was_a_path() -> None:
    assert [is_address(name) for name in ("s3://b/x", Path("s3://b/x"), "data/x", "C:/x")] == [True, True, False, False]


@pytest.mark.parametrize("name", ["s3://bucket/a", Path("s3://bucket/a"), StorePath("s3://bucket/a")])
def test_an_address_is_refused_where_a_file_system_is_needed(name: str | Path | StorePath) -> None:
    with pytest.raises(DataError) as error:
        on_disk(name, "checkpoints", "--runs")
    assert str(error.value) == (
        "s3://bucket/a: is an address of a store, and checkpoints must be on a file system: name a folder on a disk "
        "with --runs"
    )
    assert on_disk("file:///a", "checkpoints") == Path("/a")


def test_no_folder_is_made_or_cut_under_the_name_of_an_address(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"^s3://bucket/world: is an address of a store, and a new folder must be"):
        NewFolder(Path("s3://bucket/world"), "")
    with pytest.raises(DataError, match=r"^s3://bucket/world: is an address of a store, and the folder to be cut"):
        cut_folder("s3://bucket/world", tmp_path / "cut", long_length=3)
    with pytest.raises(DataError, match=r"^s3://bucket/cut: is an address of a store, and a new folder must be"):
        cut_folder(dataset, "s3://bucket/cut", long_length=3)
    assert list(tmp_path.iterdir()) == []
