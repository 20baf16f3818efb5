"""A checkpoint directory is complete or skipped, even if a save or a removal was killed."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import warnings
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from lightning_ccn.sharding import ShardingError, TorchRecStrategy, checkpoint, digests, newest_whole, read_manifest
from lightning_ccn.sharding.errors import disk_words
from lightning_ccn.sharding.saver import Saver
from tests.sharding.dlrm import Loader
from tests.sharding.ranks import on_ranks
from tests.sharding.runs import fitted, make_model, make_trainer


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of steps 1, 2 and 3 from two ranks."""
    folder = tmp_path_factory.mktemp("template")
    fitted(2, folder, steps=3, strategy={"plan": {"item": "row_wise"}}, trainer={"save_every": 1})
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """A copy of `template` that the test may damage."""
    return Path(shutil.copytree(template, tmp_path / "run"))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_the_newest_whole_checkpoint_is_found_by_time_not_by_name(folder: Path) -> None:
    (folder / "step=3.ckpt").rename(folder / "another name")
    assert newest_whole(folder) == folder / "another name"


def test_a_folder_without_checkpoints_has_no_newest(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    assert newest_whole(tmp_path) is None
    assert newest_whole(tmp_path / "not there") is None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: truncate(path / "__1_0.distcp"), "__1_0.distcp has"),
        (lambda path: (path / "__0_0.distcp").unlink(), "__0_0.distcp is missing"),
        (lambda path: (path / ".metadata").unlink(), ".metadata is missing"),
        (lambda path: (path / "trainer.pt").unlink(), "trainer.pt is missing"),
        (lambda path: (path / "checkpoint.json").unlink(), "its save was not finished, or its removal was begun"),
        (lambda path: truncate(path / "checkpoint.json"), "checkpoint.json is damaged"),
    ],
    ids=["truncated", "shard", "metadata", "trainer", "unfinished", "manifest"],
)
def test_a_broken_checkpoint_is_skipped_with_a_warning(
    folder: Path, damage: Callable[[Path], object], said: str
) -> None:
    damage(folder / "step=3.ckpt")
    with pytest.warns(UserWarning, match=r"skipped: .*step=3\.ckpt.*" + said):
        assert newest_whole(folder) == folder / "step=2.ckpt"


def test_if_no_checkpoint_is_complete_the_error_says_why(folder: Path) -> None:
    for step in (1, 2, 3):
        (folder / f"step={step}.ckpt" / "__0_0.distcp").unlink()
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(ShardingError, match="is complete") as error:
        newest_whole(folder)
    assert str(error.value).count("__0_0.distcp is missing") == 3


def test_an_unfinished_first_save_counts_as_no_checkpoint(folder: Path) -> None:
    for step in (1, 2):
        shutil.rmtree(folder / f"step={step}.ckpt")
    (folder / "step=3.ckpt" / "checkpoint.json").unlink()
    (folder / "step=3.ckpt").rename(folder / ".step=3.ckpt.partial")
    with pytest.warns(UserWarning, match="skipped"):
        assert newest_whole(folder) is None


def test_a_checkpoint_of_an_unknown_format_is_rejected(folder: Path) -> None:
    manifest = folder / "step=3.ckpt" / "checkpoint.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))
    with pytest.raises(ShardingError, match="format 99, this version reads 1"):
        read_manifest(folder / "step=3.ckpt")


def read_all(path: Path) -> None:
    tensors = read_manifest(path)["tensors"].items()
    wanted = {key: torch.empty(about["shape"], dtype=getattr(torch, about["dtype"])) for key, about in tensors}
    checkpoint.load_tensors(path, wanted, None)


@pytest.mark.parametrize("block", [1_000, None], ids=["many blocks", "one"])
@pytest.mark.parametrize("name", ["__0_0.distcp", "__1_0.distcp", ".metadata", "trainer.pt"])
def test_a_file_that_was_changed_at_the_same_size_or_is_of_another_checkpoint_is_not_loaded(
    name: str, block: int | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = folder / "step=3.ckpt", folder / "step=2.ckpt"
    if block:
        monkeypatch.setattr(digests, "BLOCK", block)
        manifest = json.loads((path / "checkpoint.json").read_text())
        manifest["digests"] = {at: digests.digests_of((path / at).read_bytes()) for at in manifest["digests"]}
        (path / "checkpoint.json").write_text(json.dumps(manifest))
    read_all(path)
    content = (path / name).read_bytes()
    place = content.index(b"data/0") + 50 if name.endswith(".distcp") else len(content) // 2
    for changed in (content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :], (other / name).read_bytes()):
        if changed == content or len(changed) != len(content):
            continue
        (path / name).write_bytes(changed)
        with pytest.raises(ShardingError, match=rf"step=3.ckpt: {name} is not what was saved: .* Load another"):
            read_all(path)


def test_digests_are_of_every_block_of_every_file(template: Path) -> None:
    path = template / "step=3.ckpt"
    found = read_manifest(path)["digests"]
    assert found == {
        file.name: digests.digests_of(file.read_bytes()) for file in path.iterdir() if file.name != "checkpoint.json"
    }
    assert {"__0_0.distcp", "__1_0.distcp", ".metadata", "trainer.pt"} == set(found)


@pytest.mark.parametrize("lengths", [(0,), (10,), (4, 6), (10, 10), (25,), (3, 19, 1)])
def test_digests_do_not_depend_on_how_a_file_is_written(
    lengths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "BLOCK", 10)
    digester, content = digests.Digester(), bytes(range(sum(lengths)))
    for first, length in zip(accumulate(lengths, initial=0), lengths, strict=False):
        digester.add(content[first : first + length])
    assert digester.digests == [digests.digests_of(content[at : at + 10])[0] for at in range(0, len(content), 10)]


def test_a_rank_compares_only_the_blocks_that_it_reads_and_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "BLOCK", 10)
    (tmp_path / "file").write_bytes(bytes(35))
    verifier = digests.Verifier(tmp_path, {"file": digests.digests_of(bytes(35))})
    (tmp_path / "file").write_bytes(bytes(10) + b"x" * 10 + bytes(15))
    verifier.check("file", [(3, 7), (20, 15)])
    verifier.check("of an older version", [(0, 5)])
    with pytest.raises(ShardingError, match="bytes from 10 on"):
        verifier.check("file", [(9, 2)])
    (tmp_path / "file").unlink()
    (tmp_path / "file").write_bytes(b"")
    verifier.check("file", [(0, 10), (30, 5)])


@pytest.mark.parametrize("wrong", [[], {"trainer.pt": "x"}, {"trainer.pt": []}, {"trainer.pt": [1]}, {"other": []}])
def test_digests_that_cannot_be_right_are_told(wrong: object, folder: Path) -> None:
    manifest = folder / "step=3.ckpt" / "checkpoint.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"digests": wrong}))
    with pytest.raises(ShardingError, match="digests is not a digest of each block of the files"):
        read_manifest(folder / "step=3.ckpt")


class Killed(BaseException):
    """Simulates SIGKILL: no later operation runs."""


def killed_saves(folder: str) -> list[str]:
    """On one rank: replace a checkpoint, and get killed before the first, second, ... change on disk.

    After each kill, the old or the new checkpoint must be complete, and the next save must work. Returns the
    violations, and the number of kills.
    """
    dist.init_process_group("gloo", rank=0, world_size=1)
    group = dist.new_group(backend="gloo")
    assert isinstance(group, dist.ProcessGroup)
    path = Path(folder) / "last.ckpt"
    values = torch.arange(6.0)
    about = {"epoch": 0, "global_step": 0, "world_size": 1, "table_optimizer": "sgd", "plan": {}}

    def save(value: float) -> None:
        checkpoint.save(path, {"module.w": values * 0 + value}, b"trainer", about | {"value": value}, group)

    def value() -> float:
        found = newest_whole(folder)
        assert found is not None
        read = {"module.w": torch.empty(6)}
        checkpoint.load_tensors(found, read, None)
        assert read["module.w"].unique().tolist() == [read_manifest(found)["value"]]
        return float(read_manifest(found)["value"])

    names = ("mkdir", "fsync", "rename", "unlink", "rmdir")
    real: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in names}
    wrong, kills = [], 0
    save(0.0)
    while True:
        left = kills

        def kill_or(name: str) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal left
                if left == 0:
                    raise Killed(name)
                left -= 1
                return real[name](*args, **kwargs)

            return call

        for name in names:
            setattr(os, name, kill_or(name))
        try:
            save(1.0 + kills)
            done = True
        except (Killed, ShardingError):  # DCP wraps what is raised inside it
            done = False
        finally:
            for name in names:
                setattr(os, name, real[name])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            now = value()
        if now not in (float(kills), 1.0 + kills):
            wrong.append(f"after {kills} changes the value is {now}")
        if done:
            return [*wrong, f"{kills} kills"]
        kills += 1
        save(float(kills))
        if value() != kills or not path.exists():
            wrong.append(f"after {kills} changes the next save is not found")


def test_a_save_that_is_killed_at_any_time_leaves_the_old_or_the_new_checkpoint(tmp_path: Path) -> None:
    ((*wrong, kills),) = on_ranks(1, killed_saves, folder=str(tmp_path))
    assert wrong == []
    assert int(kills.split()[0]) > 12
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def save_on_a_full_disk(folder: str) -> list[str]:
    """On one rank: what a save says when the disk has no space for one of its files; the checkpoint before it stays."""
    dist.init_process_group("gloo", rank=0, world_size=1)
    group = dist.new_group(backend="gloo")
    assert isinstance(group, dist.ProcessGroup)
    usual, said = Path.open, []
    path = Path(folder) / "last.ckpt"
    about = {"epoch": 0, "global_step": 0, "world_size": 1, "table_optimizer": "sgd", "plan": {}}
    # buffers of Python hold 8 KB or more: what fits into them is written when a file is closed, the rest at once
    for values, full in ((100, ""), (100, ".distcp"), (100_000, ".distcp"), (100, ".metadata.tmp")):

        def opened(path: Path, *args: Any, ending: str = full, **kwargs: Any) -> Any:
            return usual(Path("/dev/full") if ending and path.name.endswith(ending) else path, *args, **kwargs)

        Path.open = opened  # type: ignore[method-assign, assignment]
        try:
            checkpoint.save(path, {"module.w": torch.zeros(values)}, b"trainer", about, group)
        except ShardingError as error:
            said.append(str(error))
        finally:
            Path.open = usual  # type: ignore[method-assign]
    assert checkpoint.why_not_whole(path) is None
    return said


def test_a_full_disk_is_said_in_one_line(tmp_path: Path) -> None:
    (said,) = on_ranks(1, save_on_a_full_disk, folder=str(tmp_path))
    assert len(said) == 3
    for line in said:
        assert "last.ckpt was not written: rank 0: No space left on device: " in line
        assert line.endswith("make room on that disk. Earlier checkpoints are kept")
        assert "\n" not in line and "unexpected pos" not in line


def save_where_nothing_can_be_written(folder: str) -> list[str]:
    """On one rank: what a fit says whose plan cannot be written, and one whose checkpoints cannot."""
    said = []
    for strategy in ({"plan_file": "/proc/plan.json"}, {}):
        saving = ModelCheckpoint("/proc/checkpoints", "{step}", every_n_train_steps=1)
        trainer = make_trainer(folder, TorchRecStrategy(**strategy), callbacks=[saving])  # type: ignore[arg-type]
        try:
            trainer.fit(make_model(), Loader(2))
        except ShardingError as error:
            said.append(str(error))
    return said


def test_a_folder_that_cannot_be_written_is_named_on_every_rank(tmp_path: Path) -> None:
    for plan, saved in on_ranks(2, save_where_nothing_can_be_written, folder=str(tmp_path)):
        assert plan.startswith("the plan cannot be written: ") and "/proc/plan.json" in plan
        assert "step=1.ckpt was not written: " in saved and "/proc/checkpoints" in saved


def test_what_the_system_says_of_a_disk_becomes_one_line_with_a_remedy() -> None:
    read_only = OSError(errno.EROFS, os.strerror(errno.EROFS), "/data/x")
    assert disk_words(read_only) == "Read-only file system: /data/x; name a folder on a disk that can be written"
    assert disk_words(OSError("a\nb")) == "a b"


def test_only_the_own_folders_checkpoints_are_removed(tmp_path: Path) -> None:
    """Which checkpoint is removed next is a part of a checkpoint, and anybody may have written that."""
    (tmp_path / "data").mkdir()
    saver = Saver.__new__(Saver)
    with pytest.raises(ShardingError, match="is not removed"):
        saver.remove(tmp_path / "run" / ".." / "data")
    assert (tmp_path / "data").is_dir()


def keep_the_best(folder: str, background: bool) -> tuple[str, float]:
    """On one rank: keep the two best checkpoints and the last one, then test the best one."""
    best = ModelCheckpoint(folder, "{step}", monitor="train_loss", save_top_k=2, every_n_train_steps=1, save_last=True)
    strategy = TorchRecStrategy(background_saves=background)
    trainer = make_trainer(folder, strategy, callbacks=[best])
    model = make_model()
    trainer.fit(model, Loader(6))
    (result,) = trainer.test(model, Loader(2), ckpt_path="best", verbose=False)
    return best.best_model_path, result["loss"]


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
def test_model_checkpoint_keeps_the_best_and_the_last_and_nothing_else(tmp_path: Path, background: bool) -> None:
    (best, loss), (_, same) = on_ranks(2, keep_the_best, folder=str(tmp_path), background=background)
    kept = {path.name for path in tmp_path.iterdir() if path.name != "plan.json"}
    assert len(kept) == 3
    assert {"last.ckpt", Path(best).name} < kept
    assert read_manifest(tmp_path / "last.ckpt")["global_step"] == 6
    assert all(checkpoint.why_not_whole(tmp_path / name) is None for name in kept)
    assert loss == same


def fit_on_a_full_disk(folder: str, on_failed_save: Any, background: bool) -> str:
    """On one rank: from step 3 on, rank 1 can write only a few bytes; the error, or the number of steps."""
    rank = int(os.environ["LOCAL_RANK"])
    saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=1, monitor="step", mode="max")
    strategy = TorchRecStrategy(plan={"item": "row_wise"}, on_failed_save=on_failed_save, background_saves=background)
    trainer = make_trainer(folder, strategy, callbacks=[saving])
    model = make_model()
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    class Fill(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            if trainer.global_step == 2 and rank == 1:
                strategy.saver.wait()
                resource.setrlimit(resource.RLIMIT_FSIZE, (64, unlimited))

    trainer.callbacks.insert(0, Fill())  # type: ignore[attr-defined]
    try:
        trainer.fit(model, Loader(5))
        return f"{trainer.global_step} steps"
    except ShardingError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
@pytest.mark.parametrize("on_failed_save", ["raise", "warn"])
def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path, on_failed_save: str, background: bool) -> None:
    said = on_ranks(2, fit_on_a_full_disk, folder=str(tmp_path), on_failed_save=on_failed_save, background=background)
    if on_failed_save == "warn":
        assert said == ["5 steps", "5 steps"]
    else:
        assert all("was not written: rank 1: " in line for line in said)
        assert all("File too large" in line for line in said)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the unfinished directory
        assert newest_whole(tmp_path) == tmp_path / "step=2.ckpt"
