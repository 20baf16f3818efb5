"""Runs whose data, and whose predictions, are in an object store that fails now and then."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from lightning_ccn.cli import main
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.store_path import StorePath
from lightning_ccn.errors import DataError
from tests.data.stats import accept_changes
from tests.s3_server import S3Server, upload
from tests.sharding.ranks import on_ranks
from tests.training.test_resume import CRASHED, arguments, tensors

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
CPU = ["--trainer.accelerator", "cpu", "--wandb", "off"]
SHORT = ["--trainer.max_epochs", "1", "--trainer.limit_val_batches", "1"]


@pytest.fixture(scope="module")
def folder(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder on this machine, with 16 row groups to train on."""
    folder = tmp_path_factory.mktemp("data") / "data"
    shutil.copytree(dataset, folder)
    [part] = (folder / "train").glob("*.parquet")
    pq.write_table(pq.read_table(part), part, row_group_size=6)
    accept_changes(folder)
    return folder


@pytest.fixture(scope="module")
def here(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on a folder of this machine, to compare with."""
    runs = tmp_path_factory.mktemp("here")
    assert main([*arguments(folder, runs, "here", None), *SHORT]) == 0
    return runs / "test" / "here"


@pytest.fixture
def data(bucket: StorePath, folder: Path) -> StorePath:
    return upload(folder, bucket / "data")


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    *_, last = capsys.readouterr().err.splitlines()
    return last


def main_with(environment: dict[str, str], words: list[str]) -> int:
    """Runs a command on a rank, which has been started before it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return main(words)


def every_seventh(request: str, number: int) -> str:
    """Reads that fail at once, or now and then by a body that ends early, after which pyarrow waits by itself."""
    if not request.startswith("GET") or number % 7:  # a row group is read by fewer requests than seven
        return ""
    return "400" if number % 49 else "cut"


def test_a_run_on_a_store_that_fails_now_and_then_is_resumed_to_the_bit(
    here: Path, data: StorePath, s3_server: S3Server, tmp_path: Path
) -> None:
    def run(crash_at: int | None, *options: str) -> int:
        words = [*arguments(Path(), tmp_path, "there", crash_at), *SHORT, "--data.folder", str(data), *options]
        return main([*words, "--data.workers", "3", "--data.cache", str(tmp_path / "kept")])

    with s3_server.failing(every_seventh):
        assert run(7) == CRASHED
        assert run(None, "--ckpt_path", "last") == 0
    there = tmp_path / "test" / "there"
    expected, found = (tensors(run / "checkpoints" / "last.ckpt") for run in (here, there))
    assert expected.keys() == found.keys()
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    assert f"folder: {data}\n" in (there / "config.yaml").read_text()


def test_two_ranks_read_a_store_and_predict_into_it(
    here: Path,
    data: StorePath,
    bucket: StorePath,
    s3_server: S3Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    predict = ["predict", "--ckpt_path", str(here), *QUIET, "--data.workers", "0"]
    assert main([*predict, "--output", str(tmp_path / "here")]) == 0
    predict += ["--data.folder", str(data)]
    two = ["--trainer.devices", "2", *CPU[:2], "--data.batch_pages", "8"]
    words = [*predict, "--output", f"{bucket}/scores", *two]
    own = {**s3_server.environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert on_ranks(2, main_with, environment=own, words=words) == [0, 0]
    files = [path.name for path in (bucket / "scores").files()]
    assert (files[0], [name.startswith("part-") for name in files[1:]]) == ("_SUCCESS", [True, True])
    (tmp_path / "there").mkdir()
    for path in (bucket / "scores").glob("*.parquet"):
        path.copy_to(tmp_path / "there" / path.name)
    expected, found = (pq.read_table(tmp_path / name).to_pylist() for name in ("here", "there"))
    assert len(expected) == len(found) > 0

    def by_ids(rows: list[dict[str, float]]) -> dict[tuple[float, float], float]:
        return {(row["page_id"], row["item_id"]): row["probability"] for row in rows}

    assert by_ids(found) == pytest.approx(by_ids(expected), abs=1e-6)
    # a part that does not arrive: nothing is left, and the folder is not taken for whole
    lost = "/lost/part-"
    with s3_server.failing(lambda request, number: "400" if lost in request and "GET" not in request else ""):
        assert main([*predict, "--output", f"{bucket}/lost"]) == 2
    assert re.search(rf"{bucket}{lost}\S*: cannot be written, after 4 tries", last_line(capsys))
    assert (bucket / "lost").files() == []


def test_a_row_group_that_cannot_be_read_ends_the_run_in_one_line(
    data: StorePath, s3_server: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = {"footers": 0}

    def after_the_footer(request: str, number: int) -> str:
        if request.startswith("GET") and "train/part-00000" in request:
            seen["footers"] += 1
        return "400" if seen["footers"] > 4 else ""  # of the columns, two of the digest, and of the rows

    fit = ["fit", "--data.folder", str(data), "--runs", str(tmp_path), *QUIET, *CPU, "--data.workers", "0"]
    with s3_server.failing(after_the_footer):
        assert main(fit) == 2
    expected = rf"error: {data}/train/part-00000.parquet: row group \d+: cannot be read, after 4 tries: AWS Error"
    assert re.search(expected, last_line(capsys))


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("s3://nowhere/data", "s3://nowhere/data: there is no such bucket"),
        ("{bucket}/nothing", "{bucket}/nothing: no such folder; data.folder names"),
        ("{bucket}/part", "{bucket}/part: stats.json is missing, so this dataset folder is incomplete"),
        ("az://box/data", "az://box: is not a store that pyarrow can open"),
        ("s3:/bucket/data", "s3:/bucket/data: is not an address such as s3://bucket/folder"),
    ],
)
def test_data_that_cannot_be_read_are_refused(bucket: StorePath, folder: str, message: str) -> None:
    (bucket / "part" / "schema.yaml").write_text("tables: {}")  # an upload that was not finished
    (bucket / "part" / "items.parquet").write_text("")
    with pytest.raises(DataError) as error:
        Dataset.open(folder.format(bucket=bucket))
    assert str(error.value).startswith(message.format(bucket=bucket))


def test_no_right_to_read_is_one_line_before_any_work(
    data: StorePath, s3_server: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with s3_server.failing(lambda request, number: "403"):
        assert main(["fit", "--data.folder", str(data), "--runs", str(tmp_path / "runs")]) == 2
    assert f"ccn: error: {data}: the store refuses access; give the credentials" in last_line(capsys)
    assert not list((tmp_path / "runs").rglob("*.yaml"))


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "--data.folder", "FOLDER", "--runs", "s3://b/runs"],
        ["fit", "--data.folder", "FOLDER", "--finetune", "s3://b/run"],
        ["predict", "--ckpt_path", "s3://b/run"],
        ["compare", "--data.folder", "FOLDER", "--output", "s3://b/compare"],
    ],
    ids=lambda words: words[-2],
)
def test_checkpoints_in_a_store_are_refused(
    dataset: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main([str(dataset) if word == "FOLDER" else word for word in words]) == 2
    option, address = words[-2:]
    assert last_line(capsys) == (
        f"ccn: error: {address}: is an address of a store, and checkpoints must be on a file system: name a folder on "
        f"a disk with {option}"
    )


def test_a_folder_in_a_store_is_checked(
    data: StorePath, bucket: StorePath, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["data", "check", str(data), "--html", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out.startswith(str(data))
    assert (tmp_path / "page.html").is_file()
    (data / "stats.json").unlink()
    assert main(["data", "check", str(data)]) == 1
    assert f"{data}/stats.json: missing" in capsys.readouterr().err
    assert main(["data", "check", str(data), "--write_stats", "true"]) == 0
    assert (data / "stats.json").is_file() and (data / "yardstick.json").is_file()
    (data / "train" / "part-00000.txt").write_text("1")
    assert main(["data", "check", str(data)]) == 1
    assert f"{data}/train/part-00000.txt: not read, because its name does not end" in capsys.readouterr().err
    assert main(["data", "check", f"{bucket}/nothing"]) == 1
    assert f"{bucket}/nothing: no such folder" in capsys.readouterr().err
