"""`Package` refuses an incomplete folder, or one of another version, and says why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_ccn.serving.errors import PackageError
from lightning_ccn.serving.manifest import Manifest
from lightning_ccn.serving.package import Package, StoredTable


@pytest.fixture
def copied(package: Path, tmp_path: Path) -> Path:
    return shutil.copytree(package, tmp_path / "copied")


def test_a_manifest_survives_its_file(package: Path) -> None:
    manifest = Package(package).manifest
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_a_package_of_before_times_reads_none(copied: Path) -> None:
    plain = json.loads((copied / "package.json").read_text())
    assert plain.pop("reads_gaps") is False
    (copied / "package.json").write_text(json.dumps(plain))
    assert Package(copied).manifest.reads_gaps is False


def test_tables_and_attributes_are_memory_mapped(package: Path) -> None:
    opened = Package(package)
    arrays = [*(table.values for table in opened.tables.values()), *opened.attributes.values()]
    assert all(isinstance(array, np.memmap) for array in arrays)


def test_an_int8_row_is_scaled_by_its_own_factor() -> None:
    table = StoredTable(np.array([[127, -127], [64, 0]], np.int8), np.array([0.5, 2.0], np.float32))
    np.testing.assert_array_equal(table(np.array([1, 0])), np.array([[128.0, 0.0], [63.5, -63.5]], np.float32))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("tables/item.values.npy", Path.unlink, "item.values.npy: is missing"),
        ("tables/item.values.npy", _cut, "item.values.npy: has 4,029 bytes instead of 4,032"),
        ("items/category.npy", _flip, "category.npy: is not the file that was written"),
        ("model.onnx", _flip, "model.onnx: is not the file that was written"),
        ("package.json", Path.unlink, "is not a package, since it has no package.json"),
        ("package.json", _cut, "package.json: is damaged"),
        ("package.json", lambda path: path.write_bytes(b"\xff\x00"), "package.json: is damaged"),
        ("package.json", _loop, "package.json: cannot be read: Too many levels of symbolic links"),
    ],
)
def test_a_damaged_package_names_the_file(name: str, damage: Callable[[Path], object], said: str, copied: Path) -> None:
    damage(copied / name)
    with pytest.raises(PackageError) as error:
        Package(copied)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plain: plain.update(format=2), "the package has format 2, and this version serves format 1"),
        (lambda plain: plain.pop("user"), "user: missing, or not known here"),
        (lambda plain: plain.update(extra=1), "extra: missing, or not known here"),
        (lambda plain: plain.update(user=[{"name": 1}]), "user[0]"),
        (lambda plain: plain.update(user="city"), "user: 'city' is not"),
        (lambda plain: plain.update(short_length="x"), "short_length: 'x' is not int"),
        (lambda plain: plain.update(short_length=True), "short_length: True is not int"),
        (lambda plain: plain.update(short_length=-3), "short_length: -3 is below 1"),
        (lambda plain: plain.update(item=[]), "item: has no feature"),
        (lambda plain: plain.update(category="nope"), "nope: is no feature of an item with one value"),
        (lambda plain: plain["numbers"][0].update(deviation=0), "price: a mean of"),
        (lambda plain: plain["tables"]["item"].update(kind="texts"), "tables.item.kind: 'texts' is none of"),
        (lambda plain: plain["item"][0].update(table="nope"), "'nope' is no table of the package"),
    ],
)
def test_a_manifest_of_another_version_is_refused(
    change: Callable[[dict[str, Any]], object], said: str, copied: Path
) -> None:
    path = copied / "package.json"
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))
    with pytest.raises(PackageError) as error:
        Package(copied)
    assert said in str(error.value)
