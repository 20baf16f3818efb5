"""A checkpoint is data: whatever its files hold, reading it runs no code, and the refusal is one line."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata, MetadataIndex

from lightning_ccn.sharding import ShardingError, newest_whole, read_manifest, read_trainer_state
from lightning_ccn.sharding.checkpoint import load_tensors
from lightning_ccn.sharding.stored_tensors import read_index
from tests.sharding.runs import refusal
from tests.trap import Trap

SAVED = Path(__file__).parents[1] / "saved_by_0_1_0" / "epoch0.ckpt"
TABLE = "tables.user.weight"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy that the test may change."""
    return Path(shutil.copytree(SAVED, tmp_path / "last.ckpt"))


def change_manifest(checkpoint: Path, **changes: Any) -> None:
    file = checkpoint / "checkpoint.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def put(checkpoint: Path, name: str, content: bytes) -> None:
    """Writes a file and its size in the manifest."""
    (checkpoint / name).write_bytes(content)
    files = json.loads((checkpoint / "checkpoint.json").read_text())["files"]
    change_manifest(checkpoint, files=files | {name: len(content)})


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def read_all(checkpoint: Path, value: Any = None) -> None:
    """Reads everything of a checkpoint; `value` is what the module has in the place of `TABLE`."""
    read_manifest(checkpoint)
    read_trainer_state(checkpoint)
    load_tensors(checkpoint, {TABLE: torch.empty(41, 4) if value is None else value}, None)


def refused(checkpoint: Path, trap: Trap | None, value: Any = None) -> str:
    """The message of the refusal, which is one line, and nothing was run."""
    with pytest.raises(ShardingError) as error:
        read_all(checkpoint, value)
    assert "\n" not in str(error.value)
    assert str(checkpoint) in str(error.value)
    assert "weights_only" not in str(error.value)  # torch's advice to run the code
    assert trap is None or not trap.path.exists()
    return str(error.value)


def test_the_helper_reads_a_good_checkpoint(checkpoint: Path) -> None:
    shape = read_manifest(checkpoint)["tensors"][TABLE]["shape"]
    assert shape == [41, 4]
    read_all(checkpoint)


@pytest.mark.parametrize("write", [saved, pickle.dumps], ids=["torch", "pickle"])
def test_code_in_the_trainers_state_is_not_run(
    checkpoint: Path, trap: Trap, write: Callable[[Any], bytes], recwarn: pytest.WarningsRecorder
) -> None:
    put(checkpoint, "trainer.pt", write({"callbacks": {"x": trap}}))
    assert "trainer.pt is refused: it " in refused(checkpoint, trap)
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("state", [[1], {1: 2}, {"epoch": "one", "global_step": 1}], ids=["list", "key", "epoch"])
def test_a_trainers_state_of_another_kind_is_refused(checkpoint: Path, state: Any) -> None:
    put(checkpoint, "trainer.pt", saved(state))
    assert "trainer.pt is refused: it" in refused(checkpoint, None)


def test_code_in_the_index_is_not_run_and_logged_nowhere(
    checkpoint: Path, trap: Trap, caplog: pytest.LogCaptureFixture
) -> None:
    put(checkpoint, ".metadata", pickle.dumps(trap))
    for rank in range(2):  # DCP's files for a rank alone, which it tries when it cannot read `.metadata`
        put(checkpoint, f"__{rank}.metadata", pickle.dumps(trap))
    said = refused(checkpoint, trap)
    assert ".metadata is refused: it names posix.mkdir; " in said
    assert "metadata is not found" not in caplog.text  # with a traceback, in torch 2.14


@pytest.mark.parametrize(
    "name", ["builtins.eval", "os.system", "torch.load", "torch.hub.load", "torch.Size.__new__", "pathlib.Path"]
)
def test_the_index_may_name_dcps_records_only(name: str) -> None:
    module, _, attribute = name.partition(".") if name == "torch.Size.__new__" else name.rpartition(".")
    content = b"\x80\x04\x8c" + bytes([len(module)]) + module.encode()
    content += b"\x8c" + bytes([len(attribute)]) + attribute.encode() + b"\x93."
    with pytest.raises(ValueError, match=f"it names {name}; only DCP's own records are read"):
        read_index(io.BytesIO(content), {})


def test_an_index_cannot_change_a_class_of_this_process() -> None:
    module = b"torch.distributed.checkpoint.metadata"
    metadata = b"\x8c" + bytes([len(module)]) + module + b"\x8c\x08Metadata\x93"
    change = b"N}\x8c\x07changedK\x01s\x86b."  # BUILD with (None, {"changed": 1}): sets attributes
    with pytest.raises(ValueError, match="damaged"):
        read_index(io.BytesIO(b"\x80\x04" + metadata + change), {})
    assert not hasattr(Metadata, "changed")


def index_of(checkpoint: Path) -> Any:
    return FileSystemReader(checkpoint).read_metadata()


def outside(index: Any) -> None:
    for place in index.storage_data.values():
        place.relative_path = "../secret"


def too_long(index: Any) -> None:
    for place in index.storage_data.values():
        place.length = 10**9


def incomplete(index: Any) -> None:
    index.state_dict_metadata[TABLE].chunks = []


def beyond(index: Any) -> None:
    index.state_dict_metadata[TABLE].size = torch.Size([40, 4])


def wrong_kind(index: Any) -> None:
    index.state_dict_metadata = [1]


def wrong_number(index: Any) -> None:
    index.state_dict_metadata[TABLE].size = torch.Size([-41, 4])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (outside, r"of '\.\./secret', which are not there"),
        (too_long, "which are not there"),
        (incomplete, f"the parts of {TABLE} have 0 values, the tensor has 164"),
        (beyond, f"a part of {TABLE} is outside the tensor"),
        (wrong_kind, "it is damaged"),
        (wrong_number, "a number in it is not a whole number"),
    ],
)
def test_an_index_that_does_not_describe_the_files_is_refused(
    checkpoint: Path, change: Callable[[Any], None], words: str
) -> None:
    index = index_of(checkpoint)
    change(index)
    content = pickle.dumps(index)
    put(checkpoint, ".metadata", content)
    with pytest.raises(ValueError, match=words):
        read_index(io.BytesIO(content), read_manifest(checkpoint)["files"])
    assert ".metadata is refused: " in refused(checkpoint, None)


def test_the_index_is_that_which_dcp_reads() -> None:
    with open(SAVED / ".metadata", "rb") as file:
        ours = read_index(file, read_manifest(SAVED)["files"])
    theirs = index_of(SAVED)
    assert ours.state_dict_metadata == theirs.state_dict_metadata
    assert ours.storage_data == theirs.storage_data


def test_an_index_that_python_3_13_wrote_is_read() -> None:
    """It has the path of the save, whose class has another name there."""
    content = pickle.dumps(index_of(SAVED), protocol=2)
    newer = content.replace(b"cpathlib\n", b"cpathlib." + b"_local\n")
    assert b"cpathlib." in newer
    assert TABLE in read_index(io.BytesIO(newer), read_manifest(SAVED)["files"]).state_dict_metadata


def test_code_in_a_file_of_tensors_is_not_run(checkpoint: Path, trap: Trap) -> None:
    index, content = index_of(checkpoint), saved(trap)
    for place in index.storage_data.values():
        place.offset, place.length = 0, len(content)
    file = place.relative_path
    put(checkpoint, file, content + (checkpoint / file).read_bytes())
    put(checkpoint, ".metadata", pickle.dumps(index))
    assert "only tensors are read, and no code is run" in refused(checkpoint, trap)


@pytest.mark.parametrize("value", [{}, None], ids=["value", "tensor"])
def test_code_in_an_entry_that_is_not_a_tensor_is_not_run(checkpoint: Path, trap: Trap, value: Any) -> None:
    index, content = index_of(checkpoint), saved(trap)
    place = next(place for key, place in index.storage_data.items() if key.fqn == TABLE)
    place.offset, place.length = 0, len(content)
    index.state_dict_metadata[TABLE] = BytesStorageMetadata()
    index.storage_data[MetadataIndex(TABLE)] = place
    put(checkpoint, place.relative_path, content + (checkpoint / place.relative_path).read_bytes())
    put(checkpoint, ".metadata", pickle.dumps(index))
    said = refused(checkpoint, trap, value)
    assert f"{TABLE} is " + ("a tensor here, and something else" if value is None else "refused: it names") in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"files": {"../../etc/passwd": 1}}, "files is not a size for each file of this folder"),
        ({"files": {"..": 1}}, "files is not"),
        ({"files": {"trainer.pt": "5865"}}, "files is not"),
        ({"files": ["trainer.pt"]}, "files is not"),
        ({"saved_ns": "now"}, "saved_ns is not a whole number"),
        ({"format": "1"}, "format is not a whole number"),
        ({"tensors": {TABLE: {"dtype": "load", "shape": [1]}}}, "tensors is not a dtype and a shape for each tensor"),
        ({"tensors": {TABLE: {"dtype": "float32", "shape": [-1]}}}, "tensors is not"),
        ({"tensors": {TABLE: {"dtype": "float32", "shape": [10**15]}}}, "would take 4,000,000,000,000,000 bytes"),
        ({"world_size": None}, "world_size is not a whole number"),
        ({"plan": 3}, "plan is not a placement for each table"),
    ],
)
def test_a_manifest_with_a_wrong_field_is_refused(checkpoint: Path, changes: dict[str, Any], words: str) -> None:
    change_manifest(checkpoint, **changes)
    assert f"checkpoint.json is damaged: {words}" in refused(checkpoint, None).replace("its tensors ", "")
    with pytest.warns(UserWarning, match="checkpoint.json is damaged"), pytest.raises(ShardingError, match="complete"):
        newest_whole(checkpoint.parent)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is not JSON"),
        (b"[]", "it is not an object"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b"\xff{}", "it is not JSON"),
        (b'{"format": 1}', "saved_ns is missing"),
    ],
    ids=["empty", "list", "deep", "bytes", "missing"],
)
def test_a_manifest_that_is_no_manifest_is_refused(checkpoint: Path, content: bytes, words: str) -> None:
    (checkpoint / "checkpoint.json").write_bytes(content)
    assert f"checkpoint.json is damaged: {words}" in refused(checkpoint, None)


def test_a_file_given_as_checkpoint_is_not_read(tmp_path: Path, trap: Trap) -> None:
    file = tmp_path / "lightning.ckpt"
    file.write_bytes(saved({"state_dict": trap}))
    assert "it is a file; a checkpoint is a folder, and a file is never read as one" in refused(file, trap)
    file.write_bytes(pickle.dumps(trap))
    assert "it is a file" in refused(file, trap)


def test_the_folder_of_a_run_names_its_checkpoints_newest_first(tmp_path: Path) -> None:
    checkpoints = tmp_path / "runs" / "run" / "checkpoints"
    for n, name in enumerate(("b", "a", "broken", ".hidden.partial", "c")):
        shutil.copytree(SAVED, checkpoints / name)
        change_manifest(checkpoints / name, saved_ns=n)
    (checkpoints / "broken" / "trainer.pt").unlink()
    named = ", ".join(str(checkpoints / name) for name in "cab")
    for folder in (checkpoints, checkpoints.parent, tmp_path / "runs"):
        assert refused(folder, None).endswith(f"it is not a checkpoint, but holds some; give one of them: {named}")
    (checkpoints / "a" / "checkpoint.json").unlink()
    assert "its save was not finished" in refused(checkpoints / "a", None)


def test_a_folder_that_never_was_a_checkpoint_is_told_from_one_that_was_not_finished(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for folder in (tmp_path / "run", tmp_path / "run" / "checkpoints"):
        said = refused(folder, None)
        assert said.endswith(
            "it is not a checkpoint, and holds none; name one, or the folder of a run that has saved one"
        )


def test_a_hostile_checkpoint_stops_a_resume_in_one_line(checkpoint: Path, trap: Trap, tmp_path: Path) -> None:
    put(checkpoint, "trainer.pt", saved({"epoch": trap}))
    said = refusal(tmp_path, 2, ckpt_path=str(checkpoint))
    assert "trainer.pt is refused: it names posix.mkdir" in said
    assert "\n" not in said
    assert not trap.path.exists()
