"""`ccn predict --ids raw` writes the ids of the log, on two ranks as on one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.cli import main
from lightning_ccn.data.check.check import check
from lightning_ccn.data.vocabulary import Vocabulary
from lightning_ccn.errors import DataError
from lightning_ccn.training.preflight import Preflight
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
