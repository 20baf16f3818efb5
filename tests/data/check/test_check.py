"""`ccn data check`: errors across a folder. Bad values are in test_rules.py."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.cli import main
from lightning_ccn.data.check.check import check
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.splitmix64 import hash_rows
from lightning_ccn.data.vocabulary import Vocabulary
from lightning_ccn.errors import DataError
from tests.data.stats import accept_changes

Columns = dict[str, list]
Edit = Callable[..., Path]


def part(folder: Path, split: str) -> Path:
    return folder / split / "part-00000.parquet"


def test_a_folder_of_the_writer_has_no_errors(dataset: Path) -> None:
    report = check(dataset)
    assert (report.errors, report.warnings, report.notes) == ([], [], [])
    assert report.splits == Dataset.open(dataset).splits


def test_the_report_reads_as_text(make_dataset: Edit, edit: Edit) -> None:
    folder = make_dataset()
    assert re.search(
        r"^train +96 +332 +55 +0\.1657  2023-11-14 22:34:30 to 2023-11-15 22:08:30$", str(check(folder)), re.M
    )
    assert str(check(folder)).endswith("\nvalid")
    edit(folder, "train", lambda columns: columns["clicks"][0].append(0))
    assert re.search(r"^error: .*part-00000\.parquet: row 0, column clicks: ", str(check(folder)), re.M)
    assert str(check(folder)).endswith("\nnot a valid dataset")


def test_what_a_spark_job_writes_becomes_usable_once_its_stats_are_written(tmp_path: Path) -> None:
    """int32, list<element: int32>, optional fields, null lists, snappy, several parts, no vocabulary, no stats."""
    folder = tmp_path / "spark"
    rng = np.random.default_rng(0)
    folder.mkdir()
    (folder / "schema.yaml").write_text(
        "tables: {item: {rows: 50}, user: {rows: 1000, mapping: hash}, brand: {rows: 7}}\n"
        "user: [{name: user_id, table: user}]\n"
        "attributes: [{name: brand, table: brand}]\n"
        "numbers: [price]\n"
        "category: brand\n"
    )
    brand = np.concatenate([[0], rng.integers(1, 7, 49)])
    pq.write_table(pa.table({"item": pa.array(range(50), pa.int32()), "brand": pa.array(brand, pa.int32())}),
                   folder / "items.parquet")  # fmt: skip
    some = pa.list_(pa.field("element", pa.int32()))
    for number, (split, parts) in enumerate({"train": 3, "validation": 1, "test": 1}.items()):
        (folder / split).mkdir()
        (folder / split / "_SUCCESS").touch()
        for piece in range(parts):
            table = pa.table(
                {
                    "page_id": pa.array(np.arange(5) + 100 * number + 10 * piece),
                    "time": pa.array(np.full(5, 10_000 * number + 5_000), pa.int32()),
                    "trigger": pa.array(rng.integers(0, 50, 5), pa.int32()),
                    "user_id": pa.array(rng.integers(1, 1000, 5), pa.int32()),
                    "items": pa.array([[1, 2], [3], [4, 5, 6], [7], [8]], some),
                    "clicks": pa.array([[1, 0], [0], [0, 1, 0], [0], [1]], some),
                    "price": pa.array([[2.0, 4.0], [3.0], [3.0, None, 3.0], [2.0], [4.0]], pa.list_(pa.float64())),
                    "short_items": pa.array([[9, 8], None, [], [1], [2]], some),
                    "short_times": pa.array([[10, 20], None, [], [30], [5]], some),
                    "long_items": pa.array([None] * 5, some),
                    "long_times": pa.array([None] * 5, some),
                }
            )
            name = f"part-{piece:05d}-c000.snappy.parquet"
            pq.write_table(table, folder / split / name, compression="snappy", row_group_size=3)

    with pytest.raises(DataError, match=r"stats\.json is missing.*ccn data check"):
        Dataset.open(folder)
    report = check(folder)
    assert report.warnings == []
    (error,) = report.errors
    assert "stats.json: missing, and required to use the folder" in error
    assert f"`ccn data check {folder} --write_stats true` writes it" in error
    assert any("table user (hash): " in note for note in report.notes)
    assert f"{folder / 'train'}: no page with long behaviours" in report.notes

    report = check(folder, write_stats=True)
    assert (report.errors, report.warnings) == ([], [])
    assert f"{folder / 'stats.json'}: written" in report.notes
    opened = Dataset.open(folder)
    assert (opened.splits["train"].pages, opened.splits["train"].items, opened.splits["train"].clicks) == (15, 24, 9)
    assert (opened.clicked_per_page, opened.unclicked_per_page) == (9 / 15, 1.0)
    assert opened.numbers["price"] == pytest.approx((3.0, np.std([2, 4, 3, 3, 3, 2, 4])))
    report = check(folder)
    assert (report.errors, report.warnings) == ([], [])


def test_rewritten_stats_are_those_that_the_writer_wrote(make_dataset: Edit) -> None:
    folder = make_dataset(numbers=("price",))
    stats = folder / "stats.json"
    first = json.loads(stats.read_text())
    stats.unlink()
    check(folder, write_stats=True)
    again = json.loads(stats.read_text())
    assert again.pop("numbers")["price"] == pytest.approx(first.pop("numbers")["price"])
    assert again == first


def test_outdated_stats_are_an_error_until_they_are_rewritten(make_dataset: Edit, edit: Edit) -> None:
    def fewer_pages(columns: Columns) -> None:
        for values in columns.values():
            values.pop()

    folder = make_dataset(numbers=("price",))
    edit(folder, "train", fewer_pages)
    errors = check(folder).errors
    assert len(errors) == 2
    assert re.search(r"stats\.json: splits\.train: the split has pages 95, .*, but the file says 96, ", errors[0])
    assert re.search(
        r"stats\.json: numbers\.price: the mean is \S+ and the deviation \S+, but the file says \S+ and \S+; "
        r".*--write_stats true` writes it",
        errors[1],
    )
    assert check(folder, write_stats=True).errors == []
    assert check(folder).errors == []


def test_files_that_changed_since_the_stats_were_written_are_named(make_dataset: Edit) -> None:
    folder = make_dataset()
    table = pq.read_table(part(folder, "train"))
    pq.write_table(table, part(folder, "train"), row_group_size=10)  # the same pages, but another order of training
    pq.write_table(table.slice(0, 0), folder / "test" / "part-00001.parquet")
    (error,) = check(folder).errors
    assert error == (
        f"{folder}/stats.json: files: test/part-00001.parquet was added, train/part-00000.parquet was changed since "
        f"it was written; `ccn data check {folder} --write_stats true` writes it"
    )
    assert check(folder, write_stats=True).errors == []
    assert check(folder).errors == []


def test_no_stats_are_written_for_a_folder_with_errors(make_dataset: Edit, edit: Edit) -> None:
    folder = make_dataset()
    (folder / "stats.json").unlink()
    edit(folder, "test", lambda columns: columns["clicks"][0].append(0))
    report = check(folder, write_stats=True)
    assert not (folder / "stats.json").exists()
    assert report.notes == [f"{folder / 'stats.json'}: not written; fix the errors first"]


def test_valid_data_whose_stats_cannot_be_written_are_still_valid(
    make_dataset: Edit, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_dataset()
    (folder / "stats.json").unlink()
    (folder / "stats.json").mkdir()  # fails for root too, unlike a folder without permissions
    assert main(["data", "check", str(folder), "--write_stats", "true"]) == 1
    *_, error, verdict = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {folder / 'stats.json'}: cannot be written: Is a directory; ")
    assert verdict == "valid, but stats.json was not written"


@pytest.mark.parametrize("time", [-5, 0])
def test_a_time_before_1970_is_the_pages_own_fault(time: int, make_dataset: Edit, edit: Edit) -> None:
    folder = make_dataset()

    def change(columns: Columns) -> None:
        columns["time"][0] = time
        columns["long_times"][0] = [7] * len(columns["long_times"][0])
        columns["short_times"][0] = [7] * len(columns["short_times"][0])

    path = edit(folder, "train", change)
    errors = [line for line in check(folder).errors if "row 0, " in line]
    if time < 0:
        assert len(errors) == 1
        assert errors[0].startswith(f"{path}: row 0, column time: -5 is not a time; write seconds since 1970")
    else:
        assert "7 is later than the page's time, 0" in errors[0]


def test_a_malformed_stats_file_is_an_error(make_dataset: Edit) -> None:
    folder = make_dataset()
    (folder / "stats.json").write_text('{"splits": ')
    (error,) = check(folder).errors
    assert error.startswith(f"{folder / 'stats.json'}: ")
    assert "--write_stats true" in error


def test_a_missing_an_empty_and_a_pageless_folder_are_each_reported(make_dataset: Edit, tmp_path: Path) -> None:
    assert check(tmp_path / "nowhere").errors == [f"{tmp_path / 'nowhere'}: no such folder"]
    (tmp_path / "bare").mkdir()
    assert check(tmp_path / "bare").errors == [
        f"{tmp_path / 'bare' / 'schema.yaml'}: no such file; a dataset folder needs one"
    ]
    folder = make_dataset(pages={})
    report = check(folder)
    assert report.errors == [f"{folder}: no page views; write them as .parquet files in train/, validation/, test/"]
    assert report.warnings == []


def test_without_a_training_split_a_folder_is_only_valid_if_it_is_to_be_scored(make_dataset: Edit) -> None:
    folder = make_dataset("no_validation", pages={"train": 20, "test": 10})
    report = check(folder)
    assert report.errors == []
    assert report.warnings == [f"{folder}/validation: no page views, so this split cannot be used"]
    folder = make_dataset("no_train", pages={"validation": 20, "test": 10})
    assert check(folder).errors == [
        f"{folder}/train: no page views, so no model can be trained; write them as .parquet files there"
    ]
    folder = make_dataset("to_score", pages={"test": 10})
    report = check(folder)
    assert (report.errors, report.warnings) == ([], [])
    assert report.notes == [f"{folder}: only test/ has page views, so they can be scored, but no model can be trained"]


def test_items_that_are_missing_or_a_folder_are_reported_with_the_remedy(make_dataset: Edit) -> None:
    folder = make_dataset()
    path = folder / "items.parquet"
    path.unlink()
    assert check(folder).errors[0].startswith(f"{path}: not a complete Parquet file")
    path.mkdir()
    assert check(folder).errors == [
        f"{path}: is a folder, as Spark writes; order it by item and replace it by its only part"
    ]


def test_of_many_errors_of_a_kind_twenty_are_written_out_and_the_rest_counted(make_dataset: Edit, edit: Edit) -> None:
    def damage(columns: Columns) -> None:
        columns["user"] = [41] * 96  # one kind, in ten row groups
        columns["city"][5] = 9  # another

    folder = make_dataset()
    path = edit(folder, "train", damage)
    errors = check(folder).errors
    users = [error for error in errors if "column user: 41" in error]
    assert [int(re.findall(r"row (\d+),", error)[0]) for error in users] == list(range(20))
    assert errors[20] == "... and 76 more like the last one"
    assert errors[21].startswith(f"{path}: row 5, column city: 9 is not a row of table 'city' (0 to 3)")
    assert len(errors) == 22


def test_a_broken_part_hides_nothing_in_the_others(make_dataset: Edit, edit: Edit) -> None:
    folder = make_dataset()
    part(folder, "train").write_bytes(b"PAR1")
    edit(folder, "test", lambda columns: columns["clicks"][0].append(0))
    broken, ragged = check(folder).errors
    assert broken.startswith(f"{part(folder, 'train')}: not a complete Parquet file")
    assert ragged.startswith(f"{part(folder, 'test')}: row 0, column clicks: ")


def test_pages_without_items_are_counted_and_reported_as_skipped(make_dataset: Edit, edit: Edit) -> None:
    def empty(columns: Columns) -> None:
        for row in (3, 15):
            columns["items"][row], columns["clicks"][row] = [], []

    folder = make_dataset()
    path = edit(folder, "train", empty)
    report = check(folder, write_stats=True)
    assert report.errors == []
    assert report.warnings == [
        f"{path}: row {row}, column items: empty, so the reader skips this page" for row in (3, 15)
    ]
    assert report.splits["train"].pages == 96


@pytest.mark.parametrize("click", [0, 1])
def test_a_split_whose_clicks_are_all_equal_has_no_auc(make_dataset: Edit, edit: Edit, click: int) -> None:
    def same(columns: Columns) -> None:
        columns["clicks"] = [[click] * len(clicks) for clicks in columns["clicks"]]

    folder = make_dataset()
    edit(folder, "validation", same)
    report = check(folder, write_stats=True)
    assert report.warnings == [f"{folder / 'validation'}: column clicks: all are {click}, so the AUC is undefined"]


def test_only_the_test_split_may_lack_clicks(make_dataset: Edit, edit: Edit) -> None:
    folder = make_dataset()
    edit(folder, "test", lambda columns: columns.pop("clicks"))
    report = check(folder, write_stats=True)
    assert report.errors == []
    assert report.warnings == [f"{folder / 'test'}: column clicks: missing; pages can be scored, but not tested"]
    path = edit(folder, "train", lambda columns: columns.pop("clicks"))
    assert check(folder).errors == [f"{path}: column clicks: missing; write it as list<int64>"]


def test_a_page_id_that_is_repeated_is_found_within_and_across_splits(make_dataset: Edit, edit: Edit) -> None:
    folder = make_dataset()
    train = edit(folder, "train", lambda columns: columns["page_id"].__setitem__(50, 7))
    test = edit(folder, "test", lambda columns: columns["page_id"].__setitem__(3, 95))
    assert check(folder).errors == [
        f"{train}: row 50, column page_id: 7; row 7 of {train} has it too: give each page view its own id",
        f"{test}: row 3, column page_id: 95; row 95 of {train} has it too: give each page view its own id, and "
        "write it to one split: this one is in train and in test",
    ]


@pytest.mark.parametrize("overlap", [0, 1, 1000])
def test_splits_that_overlap_in_time_are_an_error(make_dataset: Edit, edit: Edit, overlap: int) -> None:
    folder = make_dataset()
    last = max(pq.read_table(part(folder, "train")).column("time").to_pylist())
    rows: list[int] = []

    def early(columns: Columns) -> None:
        rows.append(columns["time"].index(min(columns["time"])))
        for name in ("short_items", "short_times", "long_items", "long_times"):
            columns[name][rows[0]] = []
        columns["time"][rows[0]] = last - overlap

    path = edit(folder, "validation", early)
    (error,) = check(folder).errors
    assert error.startswith(f"{path}: row {rows[0]}, column time: {last - overlap} (2023-11-15 ")
    assert (
        f"is not after the last page of train, {last} (2023-11-15 22:08:30) in {part(folder, 'train')}: row 95" in error
    )
    assert error.endswith("; split by time, train before validation")


def test_true_probabilities_are_rejected_outside_the_test_split(make_dataset: Edit, edit: Edit) -> None:
    folder = make_dataset()
    path = part(folder, "train")
    table = pq.read_table(path)
    truth = pa.array([[0.5] * len(items) for items in table.column("items").to_pylist()])
    pq.write_table(table.append_column("attainable_probability", truth), path)
    assert check(folder).errors == [
        f"{path}: column attainable_probability: what only a synthetic world knows, and a model must not "
        "see; write it only to the test split"
    ]
    path = edit(folder, "test", lambda columns: columns["click_probability"][0].__setitem__(0, 1.5))
    assert check(folder).errors[1] == (
        f"{path}: row 0, column click_probability: 1.5 is not a probability; write a number from 0 to 1"
    )


def test_the_logs_own_page_ids_may_lie_beside_the_splits(make_dataset: Edit) -> None:
    folder = make_dataset()
    (folder / "page_ids").mkdir()
    pq.write_table(pa.table({"page_id": [0], "raw_session": ["a"]}), folder / "page_ids" / "train.parquet")
    report = check(folder)
    assert (report.errors, report.warnings) == ([], [])


def test_a_column_that_nothing_reads_is_a_warning(make_dataset: Edit) -> None:
    folder = make_dataset()
    path = part(folder, "train")
    table = pq.read_table(path)
    pq.write_table(table.append_column("session", table.column("page_id")), path)
    report = check(folder, write_stats=True)
    assert report.errors == []
    assert report.warnings == [
        f"{path}: column session: not in schema.yaml, so it is not read; leave it out, or add it to schema.yaml"
    ]


def test_a_vocabulary_must_have_the_rows_of_its_table(make_dataset: Edit) -> None:
    folder = make_dataset()
    path = folder / "vocabulary" / "seller.parquet"
    longer = Vocabulary.load(path)
    longer.extend(np.array([1]))
    longer.save(path)
    longer.save(folder / "vocabulary" / "brand.parquet")
    (folder / "vocabulary" / "city.parquet").write_bytes(b"")
    report = check(folder)
    assert report.warnings == [f"{folder}/vocabulary/brand.parquet: not read, because schema.yaml has no table 'brand'"]
    unreadable, rows = report.errors
    assert unreadable.startswith(f"{folder}/vocabulary/city.parquet: cannot be read as a vocabulary")
    assert rows == (f"{path}: 9 ids make 10 rows with row 0, but tables.seller.rows in schema.yaml is 9")


def test_a_table_without_any_id_has_two_rows_and_an_empty_vocabulary(make_dataset: Edit, edit: Edit) -> None:
    folder = make_dataset()  # as a converter writes it for a column that is null in the whole log
    for split in ("train", "validation", "test"):
        edit(folder, split, lambda columns: columns.update(city=[0] * len(columns["city"])))
    schema = folder / "schema.yaml"
    schema.write_text(re.sub(r"(city:\s+rows: )4", r"\g<1>2", schema.read_text()))
    Vocabulary().save(folder / "vocabulary" / "city.parquet")
    assert check(folder, write_stats=True).errors == []


def test_a_vocabulary_that_changed_no_longer_fits_the_stats(make_dataset: Edit) -> None:
    folder = make_dataset()
    path = folder / "vocabulary" / "city.parquet"
    pq.write_table(pa.table({"id": [1, 2, 3]}), path)
    (error,) = check(folder).errors
    assert error.startswith(f"{folder}: vocabulary/city.parquet was changed after stats.json was written")
    accept_changes(folder)
    (error,) = check(folder).errors
    assert error.startswith(f"{folder}/stats.json: digests differ from those of the files in vocabulary/; ")


def test_collisions_of_a_hash_table_are_estimated_from_the_rows_in_use(make_dataset: Edit, edit: Edit) -> None:
    ids = 500
    users = np.random.default_rng(0).integers(1, 1001, ids)  # as 500 hashed ids fall into 1,000 rows

    folder = make_dataset(pages={"train": ids, "validation": 20, "test": 20}, users=1000, mapping="hash")
    for split in ("train", "validation", "test"):
        edit(folder, split, lambda c: c.update(user=[int(users[i % ids]) for i in range(len(c["user"]))]))
    report = check(folder, write_stats=True)
    assert report.errors == []
    (note, _) = report.notes
    found = re.fullmatch(
        r"table user \(hash\): (\d+) of 1,000 rows in use, by about (\d+) ids; about (.*)% share a row with another",
        note,
    )
    assert found is not None
    _, count = np.unique(users, return_counts=True)
    assert int(found[1]) == len(count)
    assert int(found[2]) == pytest.approx(ids, rel=0.05)
    assert float(found[3]) == pytest.approx(100 * (1 - (count == 1).sum() / ids), abs=3)


def test_a_hash_table_with_every_row_in_use_is_reported_as_too_small(make_dataset: Edit) -> None:
    folder = make_dataset(pages={"train": 200, "validation": 20, "test": 20}, users=5, mapping="hash")
    assert check(folder).notes == [
        "table user (hash): all 5 rows are in use, so collisions cannot be estimated; give the table more rows"
    ]


def test_collisions_of_a_hash_table_are_counted_where_its_ids_are_known(make_dataset: Edit) -> None:
    folder = make_dataset(mapping="hash")
    row = hash_rows(np.arange(60), 41)
    twins = np.flatnonzero(row == np.bincount(row).argmax())[:2]
    alone = np.flatnonzero(np.bincount(row)[row] == 1)[:3]
    ids = Vocabulary()
    ids.extend(np.concatenate([twins, alone]))
    ids.save(folder / "vocabulary" / "user.parquet")
    report = check(folder, write_stats=True)
    assert report.errors == []
    assert report.notes[0] == "table user (hash): 2 of 5 ids (40.0%) share a row with another"
