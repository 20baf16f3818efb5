"""`ccn predict --ids raw` writes the ids of the log, on two ranks as on one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.callbacks import prediction_parts, prediction_writer
from lightning_ccn.callbacks.prediction_writer import PredictionWriter
from lightning_ccn.cli import main
from lightning_ccn.data.check.check import check
from lightning_ccn.data.vocabulary import Vocabulary
from lightning_ccn.errors import DataError
from lightning_ccn.training.preflight import Preflight
from tests.conftest import write_dataset
from tests.sharding.ranks import on_ranks

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false", "--data.workers", "0"]
SHORT = ["--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "0", "--checkpoint.monitor", "null"]
KINDS: dict[str, Callable[[int], Any]] = {"strings": "ä {} é".format, "integers": lambda row: 2**62 - 7 * row}
Edit = Callable[..., Path]


def ids_of(kind: str, rows: int) -> pa.Array:
    """The ids of rows 1, 2, ..., `rows`, in no order."""
    return pa.array([KINDS[kind](row) for row in range(1, rows + 1)])


@pytest.fixture(params=KINDS)
def folder(request: pytest.FixtureRequest, make_dataset: Edit, edit: Edit) -> tuple[Path, str]:
    """A dataset whose items and users have ids of that kind, and some that are unknown."""

    def forget(columns: dict[str, list]) -> None:
        columns["user"][3] = 0
        for page in (0, 3, 10):
            columns["items"][page][0] = 0

    made = make_dataset()
    for table, rows in (("item", 60), ("user", 40)):
        Vocabulary(ids_of(request.param, rows)).save(made / "vocabulary" / f"{table}.parquet")
    edit(made, "test", forget)
    assert check(made, write_stats=True).errors == []
    return made, request.param


def fitted(data: Path, runs: Path) -> Path:
    """The folder of a run of one batch."""
    assert main(["fit", "--data.folder", str(data), "--runs", str(runs), "--run_id", "r", *QUIET, *SHORT]) == 0
    return runs / "default" / "r"


def predictions(folder: Path) -> dict[tuple[Any, ...], float]:
    """The probability of each exposed item by its ids; an item that a page shows twice has the same one twice."""
    table = pq.read_table(folder).to_pydict()
    probability = table.pop("probability")
    return dict(zip(zip(*table.values(), strict=True), probability, strict=True))


def test_two_ranks_write_the_ids_of_the_log(folder: tuple[Path, str], tmp_path: Path) -> None:
    data, kind = folder
    run = fitted(data, tmp_path)
    predict = ["predict", "--ckpt_path", str(run), *QUIET, "--data.batch_pages", "7", "--output"]
    assert main([*predict, str(tmp_path / "rows")]) == 0
    ranks = ["--trainer.accelerator", "cpu", "--trainer.devices", "2"]
    assert on_ranks(2, main, args=[*predict, str(tmp_path / "raw"), "--ids", "raw", *ranks]) == [0, 0]
    lines = [pq.read_metadata(part).num_rows for part in (tmp_path / "raw").glob("*.parquet")]
    assert len(lines) == 2 and all(lines)
    schema = pq.read_table(tmp_path / "raw").schema
    of_log = ids_of(kind, 1).type
    assert schema.names == ["page_id", "user_id", "item_id", "probability"]
    assert (schema.field("user_id").type, schema.field("item_id").type) == (of_log, of_log)
    found, by_row = predictions(tmp_path / "raw"), predictions(tmp_path / "rows")

    def raw(row: int) -> Any:
        return KINDS[kind](row) if row else None

    pages = pq.read_table(data / "test").to_pylist()
    assert sum(lines) == sum(len(page["items"]) for page in pages)
    expected = {
        (page["page_id"], raw(page["user"]), raw(item)): by_row[page["page_id"], item]
        for page in pages
        for item in page["items"]
    }
    assert (pages[3]["page_id"], None, None) in expected
    assert found == pytest.approx(expected, abs=1e-6)


def test_ids_that_the_data_do_not_have_are_refused_before_anything_is_scored(
    make_dataset: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_dataset(mapping="hash")
    predict = ["predict", "--ckpt_path", str(fitted(data, tmp_path)), *QUIET, "--output", str(tmp_path / "raw")]
    assert main([*predict, "--ids", "raw"]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"ccn: error: {data}: the rows of table 'user' are hashes")
    assert not list(tmp_path.glob("*raw*"))
    with pytest.raises(DataError, match="the rows of table 'user' are hashes"):  # on the login node, too
        Preflight([*predict, "--ids", "raw"]).check_data(1)
    Preflight(predict).check_data(1)


def predict_in_parts(words: list[str], batches: int, fails_at: int | None) -> tuple[int, int]:
    """Predicts with parts of so many batches; it fails before a batch of this run, if so wanted.

    Returns:
        The exit code, and the number of batches that were scored.
    """
    done: list[int] = []
    write = PredictionWriter.write_on_batch_end

    def counted(self: PredictionWriter, *arguments: Any) -> None:
        if len(done) == fails_at:
            raise RuntimeError("the machine is gone")
        done.append(1)
        write(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        for module in (prediction_parts, prediction_writer):
            patch.setattr(module, "BATCHES", batches)
        patch.setattr(PredictionWriter, "write_on_batch_end", counted)
        return main(words), len(done)


@pytest.fixture(scope="module")
def run_and_data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("resumed")
    data = write_dataset(place / "data")
    return fitted(data, place), data


def words_of(run: Path, data: Path, out: Path) -> list[str]:
    words = ["predict", "--ckpt_path", str(run), "--data.folder", str(data), "--output", str(out)]
    return [*words, *QUIET, "--data.batch_pages", "4"]


def test_a_prediction_that_ended_early_goes_on_after_its_last_whole_part(
    run_and_data: tuple[Path, Path], tmp_path: Path
) -> None:
    words = words_of(*run_and_data, tmp_path / "out")  # 24 pages: 6 batches, 3 parts
    assert predict_in_parts(words, 2, fails_at=5) == (1, 5)
    assert not (tmp_path / "out").exists()
    assert predict_in_parts(words, 2, fails_at=None) == (0, 2)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"part-{number:05d}-00000.parquet" for number in range(3)]
    assert main(words_of(*run_and_data, tmp_path / "whole")) == 0
    assert pq.read_table(tmp_path / "out").equals(pq.read_table(tmp_path / "whole"))


def test_a_job_that_starts_again_after_its_prediction_was_finished_has_nothing_to_do(
    run_and_data: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, out = words_of(*run_and_data, tmp_path / "out"), tmp_path / "out" / "part-00000-00000.parquet"
    monkeypatch.setenv("CCN_JOB", str(tmp_path / "1"))
    assert predict_in_parts(words, 500, fails_at=None) == (0, 6)
    written = out.stat().st_mtime_ns
    assert predict_in_parts(words, 500, fails_at=None) == (0, 0)
    assert predict_in_parts([*words, "--data.predict_split", "validation"], 500, fails_at=None) == (2, 0)
    assert "exists and is not empty" in capsys.readouterr().err
    monkeypatch.setenv("CCN_JOB", str(tmp_path / "2"))
    assert predict_in_parts(words, 500, fails_at=None) == (2, 0)
    said = "a prediction has finished there, and if it was this one, nothing is left to do"
    assert said in capsys.readouterr().err
    (tmp_path / "out" / "notes").touch()  # now it may be anybody's folder
    assert predict_in_parts(words, 500, fails_at=None) == (2, 0)
    assert said not in capsys.readouterr().err
    assert out.stat().st_mtime_ns == written


def test_another_prediction_keeps_nothing_of_the_one_that_ended_early(
    run_and_data: tuple[Path, Path], tmp_path: Path
) -> None:
    words = words_of(*run_and_data, tmp_path / "out")
    assert predict_in_parts(words, 2, fails_at=5) == (1, 5)
    assert predict_in_parts([*words, "--data.predict_split", "validation"], 2, fails_at=None) == (0, 6)
    pages = pq.read_table(run_and_data[1] / "validation").column("page_id").to_pylist()
    assert set(pq.read_table(tmp_path / "out").column("page_id").to_pylist()) <= set(pages)


@pytest.mark.slow
def test_two_ranks_go_on_after_the_last_part_that_both_have(run_and_data: tuple[Path, Path], tmp_path: Path) -> None:
    ranks = ["--trainer.accelerator", "cpu", "--trainer.devices", "2"]
    words = [*words_of(*run_and_data, tmp_path / "out"), *ranks]
    assert {code for code, _ in on_ranks(2, predict_in_parts, words=words, batches=2, fails_at=3)} == {1}
    assert on_ranks(2, predict_in_parts, words=words, batches=2, fails_at=None) == [(0, 4), (0, 4)]
    assert main(words_of(*run_and_data, tmp_path / "whole")) == 0
    assert predictions(tmp_path / "out") == pytest.approx(predictions(tmp_path / "whole"), abs=1e-6)
