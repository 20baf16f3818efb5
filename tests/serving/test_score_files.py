"""`ccn score`: raw candidate lists in, scores out; a run that ended early goes on."""

from __future__ import annotations

import os
import shutil
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.cli import main
from lightning_ccn.errors import DataError
from lightning_ccn.serving import Scorer
from lightning_ccn.serving.request_files import blocks_of
from lightning_ccn.serving.score_files import score_files

REQUESTS = pa.table(
    {
        "visit": ["a", "b", "c", "d"],
        "user": [1003, 1004, None, 1005],
        "interests": [[1001, 1002], [], None, [1001]],
        "trigger": [1004, None, 1010, 1011],
        "short": [[1001, 1002], None, [1005], []],
        "items": pa.array([[1001, 1002, 1003], [1009], [], [1030, 7]], pa.list_(pa.int64())),
        "price": [[1.0, 2.0, 3.0], [None], [], [4.0, 5.0]],
        "age": [100.0, None, 90.0, 95.0],
    }
)
AS_CSV = """visit,user,trigger,items,short,price
a,1003,1004,1001|1002|1003,1001|1002,1|2|3
b,1004,,1009,,
"""


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    pq.write_table(REQUESTS, tmp_path / "requests.parquet", row_group_size=2)
    return tmp_path / "requests.parquet"


def test_each_candidate_gets_its_score_and_the_columns_of_its_request(
    package: Path, requests: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", str(package), str(requests), str(tmp_path / "scores")]) == 0
    said = capsys.readouterr().out
    assert "requests scored now: 4; candidates: 6\n" in said
    assert "unknown ids: items 1\n" in said
    without = "numbers.price 1, page_numbers.age 1, user.city 4, user.interests 1, user.user 1"
    assert f"requests without a value of: {without}\n" in said
    assert "columns that the model does not read, copied: visit\n" in said
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == ["part-00000.parquet", "part-00001.parquet"]
    scores = pq.read_table(tmp_path / "scores")
    assert scores.column_names == ["visit", "item", "probability", "degree"]
    assert scores.column("visit").to_pylist() == ["a", "a", "a", "b", "d", "d"]
    assert scores.column("item").to_pylist() == [1001, 1002, 1003, 1009, 1030, 7]
    scorer = Scorer(package)
    first = scorer.score(
        items=[1001, 1002, 1003],
        user={"user": 1003, "interests": [1001, 1002]},
        trigger=1004,
        short=[1001, 1002],
        numbers={"price": [1.0, 2.0, 3.0]},
        page_numbers={"age": 100.0},
    )
    np.testing.assert_array_equal(scores.column("probability").to_numpy()[:3], first.probability)


def test_csv_has_the_scores_of_the_same_requests(package: Path, tmp_path: Path) -> None:
    (tmp_path / "requests.csv").write_text(AS_CSV)
    assert score_files(package, tmp_path / "requests.csv", tmp_path / "scores").candidates == 4
    expected = Scorer(package).score(
        items=[1001, 1002, 1003], user={"user": 1003}, trigger=1004, short=[1001, 1002], numbers={"price": [1, 2, 3]}
    )
    scores = pq.read_table(tmp_path / "scores")
    np.testing.assert_array_equal(scores.column("probability").to_numpy()[:3], expected.probability)


def test_what_pandas_makes_of_integers_with_gaps_scores_as_the_integers(package: Path, tmp_path: Path) -> None:
    (tmp_path / "requests.csv").write_text(AS_CSV.replace("1003,1004", "1003.0,1004.0"))
    floats = REQUESTS.set_column(1, "user", REQUESTS["user"].cast(pa.float64()))
    items = floats.column_names.index("items")
    floats = floats.set_column(items, "items", floats["items"].cast(pa.list_(pa.float64())))
    pq.write_table(floats, tmp_path / "requests.parquet")
    pq.write_table(REQUESTS, tmp_path / "integers.parquet")
    (tmp_path / "integers.csv").write_text(AS_CSV)
    for kind in ("csv", "parquet"):
        for name in ("requests", "integers"):
            score_files(package, tmp_path / f"{name}.{kind}", tmp_path / f"{name}_{kind}")
        assert pq.read_table(tmp_path / f"requests_{kind}").equals(pq.read_table(tmp_path / f"integers_{kind}"))


@pytest.mark.parametrize(
    ("column", "as_written", "plain"),
    [
        ("short", pa.nulls(2), pa.array([None, None], pa.list_(pa.int64()))),
        ("items", pa.nulls(2), pa.array([None, None], pa.list_(pa.int64()))),
        ("items", pa.array([[], []], pa.list_(pa.null())), pa.array([[], []], pa.list_(pa.int64()))),
        ("user", pa.array([1003.0, float("nan")]), pa.array([1003, None])),
        ("trigger", pa.array([float("nan"), 1004.0]), pa.array([None, 1004])),
        ("short", pa.array([[1001.0, float("nan")], None]), pa.array([[1001, None], None])),
        ("items", pa.array([[1001.0, float("nan")], [1002.0]]), pa.array([[1001, None], [1002]])),
        ("items", pa.array([[Decimal(1001), Decimal(1002)], [Decimal(1003)]]), pa.array([[1001, 1002], [1003]])),
        ("user", pa.array([Decimal(1003), None]), pa.array([1003, None])),
        ("price", pa.array([[Decimal("3.5"), None], [Decimal("7.0")]]), pa.array([[3.5, None], [7.0]])),
        ("age", pa.array([Decimal("99.5"), None]), pa.array([99.5, None])),
    ],
)
def test_what_pandas_and_duckdb_write_scores_as_the_plain_values(
    column: str, as_written: pa.Array, plain: pa.Array, package: Path, tmp_path: Path
) -> None:
    said = []
    for name, values in (("written", as_written), ("plain", plain)):
        requests = {"user": [1003, 1004], "items": pa.array([[1001, 1002], [1003]]), "short": [[1001], [1002]]}
        pq.write_table(pa.table({**requests, column: values}), tmp_path / f"{name}.parquet")
        said.append(score_files(package, tmp_path / f"{name}.parquet", tmp_path / name))
    assert said[0] == said[1]
    assert pq.read_table(tmp_path / "written").equals(pq.read_table(tmp_path / "plain"))


def test_columns_of_csv_are_copied_as_they_are_written(package: Path, tmp_path: Path) -> None:
    (tmp_path / "requests.csv").write_text("visit,items\n007,1001|1002\n1e5,1003\n")
    score_files(package, tmp_path / "requests.csv", tmp_path / "scores")
    assert pq.read_table(tmp_path / "scores").column("visit").to_pylist() == ["007", "007", "1e5"]


@pytest.mark.parametrize("kind", ["csv", "parquet", "parquet without row groups"])
def test_no_requests_give_columns_without_rows(
    kind: str, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "requests"
    folder.mkdir()
    if kind == "csv":
        (folder / "0.csv").write_text(AS_CSV.splitlines()[0] + "\n")
        (folder / "1.csv").write_text(AS_CSV)
    else:
        with pq.ParquetWriter(folder / "0.parquet", REQUESTS.schema) as writer:
            if kind == "parquet":
                writer.write_table(REQUESTS.slice(0, 0))
        pq.write_table(REQUESTS, folder / "1.parquet")
    assert main(["score", str(package), str(sorted(folder.iterdir())[0]), str(tmp_path / "empty")]) == 0
    assert "requests scored now: 0; candidates: 0\n" in capsys.readouterr().out
    score_files(package, folder, tmp_path / "scores")
    [first, second] = [pq.read_table(tmp_path / "scores" / f"part-{number:05d}.parquet") for number in (0, 1)]
    assert pq.read_table(tmp_path / "empty").schema == first.schema == second.schema
    assert (len(first), second.column_names) == (0, ["visit", "item", "probability", "degree"])


WRONG_FILES = {
    "visit;items\na;1001\n": "column items: missing; it has the candidates of each request, and the header is "
    "'visit;items'; write a comma between columns, not ';'",
    "visit,item_ids\na,1001\n": "column items: missing; it has the candidates of each request, and the columns are "
    "visit, item_ids",
    "items,items\n1001,1002\n": "column items: is there twice; leave one out",
    "items\n1001\n1001|x\n": "row 1: column items: 'x' is not an integer; write a list as 1|2|3",
    "items,user\n1001,1003.5\n": "row 0: column user: '1003.5' is not an integer",
    "items,price\n1001,dear\n": "row 0: column price: 'dear' is not a number; write a list as 1|2|3",
}


@pytest.mark.parametrize("text", WRONG_FILES)
def test_a_wrong_file_is_refused_by_row_and_column(
    text: str, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "requests.csv").write_text(text)
    assert main(["score", str(package), str(tmp_path / "requests.csv"), str(tmp_path / "scores")]) == 2
    assert capsys.readouterr().err == f"ccn: error: {tmp_path}/requests.csv: {WRONG_FILES[text]}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["requests.csv"]


def test_a_run_that_ended_early_goes_on_with_what_is_left(package: Path, requests: Path, tmp_path: Path) -> None:
    good = requests.read_bytes()
    spoiled = REQUESTS.set_column(3, "trigger", pa.array([1004, None, 2**62, 1011]))
    spoiled = spoiled.set_column(6, "price", [[[1.0, 2.0, 3.0], [None], [], [4.0]]])
    pq.write_table(spoiled, requests, row_group_size=2)
    with pytest.raises(DataError, match=r"requests.parquet: row 3: numbers.price: has 1 numbers for 2 items"):
        score_files(package, requests, tmp_path / "scores")
    assert not (tmp_path / "scores").exists()
    kept = tmp_path / ".scores.part" / "part-00000.parquet"
    written = kept.stat().st_mtime_ns
    with pytest.raises(DataError):
        score_files(package, requests, tmp_path / "scores")
    assert kept.stat().st_mtime_ns == written
    requests.write_bytes(good)  # other requests: nothing of the old ones may stay
    assert score_files(package, requests, tmp_path / "scores").candidates == 6
    assert (tmp_path / "scores" / "part-00000.parquet").stat().st_mtime_ns != written


def test_what_is_finished_is_not_scored_again(
    package: Path, requests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "replace", _second_fails(os.replace))
    with pytest.raises(OSError, match="full"):
        score_files(package, requests, tmp_path / "scores")
    monkeypatch.undo()
    assert score_files(package, requests, tmp_path / "scores").candidates == 2  # the candidates of the second row group
    assert pq.read_table(tmp_path / "scores").num_rows == 6


def test_scores_are_not_written_among_the_requests(package: Path, requests: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    requests.rename(folder / "0.parquet")
    (tmp_path / "link").symlink_to(folder)
    for output in (folder / "scores", folder / "new" / "scores", tmp_path / "link" / "scores", folder):
        with pytest.raises(DataError, match=r"is in the folder of the requests, .*; name a folder outside of it"):
            score_files(package, folder, output)
    assert [path.name for path in folder.iterdir()] == ["0.parquet"]


def test_hidden_files_and_folders_are_no_requests(requests: Path, tmp_path: Path) -> None:
    folder = tmp_path / ".hidden" / "requests"  # that the folder itself lies in a hidden one is fine
    for name in ("_temporary/0", ".ipynb_checkpoints", "day"):
        (folder / name).mkdir(parents=True)
        shutil.copy(requests, folder / name / "0.parquet")
    (folder / "_SUCCESS").touch()
    assert {block.file for block in blocks_of(folder)} == {str(folder / "day" / "0.parquet")}
    requests.rename(tmp_path / "_named.parquet")
    assert len(list(blocks_of(tmp_path / "_named.parquet"))) == 2


def _second_fails(replace: object) -> object:
    calls: list[object] = []

    def instead(source: object, target: object) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError("the disk is full")
        replace(source, target)  # type: ignore[operator]

    return instead


@pytest.mark.slow
def test_processes_share_the_work(package: Path, requests: Path, tmp_path: Path) -> None:
    score_files(package, requests, tmp_path / "one")
    assert score_files(package, requests, tmp_path / "two", processes=2).candidates == 6
    assert pq.read_table(tmp_path / "one").equals(pq.read_table(tmp_path / "two"))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"item": [[1]]}, "column items: missing"),
        ({"items": [1]}, "column items: is int64, and must be a list"),
        ({"items": [[1]], "user": [[1]]}, "column user: is list<element: int64>, and must be no list"),
        ({"items": [[1]], "probability": [0.5]}, "column probability: the scores have a column of this name"),
        ({"items": [["x"]]}, "row 0: items[0]: 'x' is not an integer"),
    ],
)
def test_a_wrong_file_is_refused_by_its_column_or_row(
    table: dict[str, list[object]], said: str, package: Path, tmp_path: Path
) -> None:
    pq.write_table(pa.table(table), tmp_path / "requests.parquet")
    with pytest.raises(DataError) as error:
        score_files(package, tmp_path / "requests.parquet", tmp_path / "scores")
    assert said in str(error.value)


def test_other_files_are_refused(package: Path, tmp_path: Path) -> None:
    (tmp_path / "requests.txt").write_text("1")
    with pytest.raises(DataError, match=r"ends in neither .parquet nor .csv"):
        score_files(package, tmp_path / "requests.txt", tmp_path / "scores")
    with pytest.raises(DataError, match="no such file or folder"):
        score_files(package, tmp_path / "nothing", tmp_path / "scores")
