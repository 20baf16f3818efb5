"""A dataset folder is data: whatever its files hold, reading it runs no code, and the refusal is one line."""

from __future__ import annotations

import base64
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lightning_ccn.cli import main
from lightning_ccn.data.check.check import check
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.parquet import decode, open_part
from lightning_ccn.data.vocabulary import Vocabulary
from lightning_ccn.data.world.knobs import WorldConfig
from lightning_ccn.errors import DataError
from tests.trap import Trap

TAGS = (
    "!!python/object/apply:os.mkdir [{path}]",
    "!!python/object/new:os.mkdir [{path}]",
    "!!python/name:os.mkdir",
    "!!python/module:os",
)


@pytest.fixture
def folder(dataset: Path, tmp_path: Path) -> Path:
    """A copy that the test may change."""
    return Path(shutil.copytree(dataset, tmp_path / "dataset"))


def refused(read: Callable[[], object], path: Path, trap: Trap) -> None:
    with pytest.raises(DataError) as error:
        read()
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert not trap.path.exists()


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("name", ["schema.yaml", "world.yaml"])
def test_a_tag_of_code_in_yaml_is_not_run(folder: Path, trap: Trap, name: str, tag: str) -> None:
    path = folder / name
    path.write_text((path.read_text() if path.exists() else "") + f"\nuser: {tag.format(path=trap.path)}\n")
    refused(lambda: Dataset.open(folder) if name == "schema.yaml" else WorldConfig.load(folder), path, trap)


@pytest.mark.parametrize("name", ["schema.yaml", "stats.json"])
def test_a_pickle_in_the_place_of_text_is_not_run(folder: Path, trap: Trap, name: str) -> None:
    (folder / name).write_bytes(pickle.dumps(trap))
    refused(lambda: Dataset.open(folder), folder / name, trap)


@pytest.mark.parametrize("name", ["schema.yaml", "stats.json"])
def test_a_deep_nesting_is_refused(folder: Path, trap: Trap, name: str) -> None:
    (folder / name).write_text("[" * 5_000)
    refused(lambda: Dataset.open(folder), folder / name, trap)


def test_a_config_cannot_hide_code_in_yaml(trap: Trap, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A config may name a class to import (`class_path`), but no call of a function."""
    config = tmp_path / "config.yaml"
    config.write_text(f"model:\n  lr: {TAGS[0].format(path=trap.path)}\n")
    with pytest.raises(SystemExit, match="2"):
        main(["fit", "--config", str(config)])
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("ccn: error: ")
    assert not trap.path.exists()


def with_pickles(table: pa.Table, trap: Trap) -> pa.Table:
    """The table, with pickled code in every place of a Parquet file where some library has looked for it."""
    code = pickle.dumps(trap)
    fields = [
        field.with_metadata({"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": code})
        for field in table.schema
    ]
    pandas = json.dumps({"index_columns": [], "columns": [], "pickle": base64.b64encode(code).decode()})
    about = {"pandas": pandas, "pickle": code, "PANDAS_ATTRS": code}
    return table.cast(pa.schema(fields)).replace_schema_metadata(about)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # arrow says that it does not load the pickled type
def test_pickles_in_the_metadata_of_a_part_are_not_read(folder: Path, trap: Trap) -> None:
    path = folder / "train" / "part-00000.parquet"
    table = pq.read_table(path)
    with open_part(path) as file:
        before = decode(file, 0, ["page_id", "trigger"])
    pq.write_table(with_pickles(table, trap), path)
    assert b"mkdir" in path.read_bytes()
    with open_part(path) as file:
        after = decode(file, 0, ["page_id", "trigger"])
    for name, values in before.items():
        same = after[name]
        assert isinstance(values, np.ndarray) and isinstance(same, np.ndarray) and np.array_equal(same, values)
    check(folder)
    assert not trap.path.exists()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_pickles_in_a_vocabulary_are_not_read(folder: Path, trap: Trap) -> None:
    path = folder / "vocabulary" / "item.parquet"
    pq.write_table(with_pickles(pq.read_table(path), trap), path)
    assert len(Vocabulary.load(path)) == 61
    pq.write_table(pa.table({"id": pa.array([pickle.dumps(trap)])}), path)
    refused(lambda: Vocabulary.load(path), path, trap)
    path.write_bytes(pickle.dumps(trap))
    refused(lambda: Vocabulary.load(path), path, trap)


@pytest.mark.parametrize("kind", ["part", "items"])
def test_a_pickle_in_the_place_of_a_parquet_file_is_not_run(folder: Path, trap: Trap, kind: str) -> None:
    path = folder / ("items.parquet" if kind == "items" else "train/part-00000.parquet")
    path.write_bytes(pickle.dumps(trap))

    def read() -> None:
        with open_part(path):
            pass

    refused(read, path, trap)
    check(folder)
    assert not trap.path.exists()


def test_values_that_are_pickles_are_no_ids(folder: Path, trap: Trap) -> None:
    path = folder / "train" / "part-00000.parquet"
    table = pq.read_table(path)
    column = pa.array([pickle.dumps(trap)] * len(table))
    pq.write_table(table.set_column(table.schema.get_field_index("page_id"), "page_id", column), path)
    report = check(folder)
    assert "page_id" in str(report)
    assert not trap.path.exists()


@pytest.mark.parametrize("option", ["--ckpt_path", "--finetune"])
@pytest.mark.parametrize("zipped", [False, True], ids=["pickle", "torch"])
def test_a_file_as_checkpoint_is_refused_by_the_command_line(
    dataset: Path, trap: Trap, tmp_path: Path, option: str, zipped: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """LightningCLI would read the file, and take hyperparameters, with names of classes, out of it."""
    file = tmp_path / "lightning.ckpt"
    if zipped:
        torch.save({"hyper_parameters": {"_class_path": f"{__name__}.Trap", "path": "x"}, "x": trap}, file)
    else:
        file.write_bytes(pickle.dumps(trap))
    args = ["fit", "--data.folder", str(dataset), "--runs", str(tmp_path / "runs"), option, str(file)]
    assert main(args) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(f"ccn: error: cannot load checkpoint {file}: it is a file; a checkpoint is a folder")
    assert not trap.path.exists()
