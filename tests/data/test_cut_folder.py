"""`ccn data cut`: what it copies, counts, keeps and refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.commands.data import run
from lightning_ccn.data.check.check import check
from lightning_ccn.data.cut_folder import cut_folder
from lightning_ccn.data.dataset import SPLITS, Dataset
from lightning_ccn.data.identity import check_same_data, data_identity
from lightning_ccn.data.new_folder import part_of
from lightning_ccn.data.reader import PageBatches
from lightning_ccn.errors import DataError, OptionError
from lightning_ccn.evaluation.heuristics import heuristic_scores
from lightning_ccn.evaluation.yardstick import read_yardstick, write_yardstick
from tests.data.stats import accept_changes

Make = Callable[..., Path]


def test_the_command_says_what_is_left(make_dataset: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_dataset()
    assert run(["cut", str(folder), str(tmp_path / "cut"), "--long_length", "1"]) == 0
    said = capsys.readouterr().out
    left = {split: sum(map(len, pq.read_table(tmp_path / "cut" / split)["long_items"].to_pylist())) for split in SPLITS}
    were = {split: sum(map(len, pq.read_table(folder / split)["long_items"].to_pylist())) for split in SPLITS}
    for split in SPLITS:
        assert any(line.split()[:3] == [split, str(were[split]), str(left[split])] for line in said.splitlines())
    assert f"written to {tmp_path / 'cut'}: parts of " in said


def test_all_else_is_copied_and_the_copy_is_valid(make_dataset: Make, tmp_path: Path) -> None:
    folder, cut = make_dataset(numbers=("price",)), tmp_path / "cut"
    write_yardstick(folder)
    (folder / "report.json").write_text("{}")
    cut_folder(folder, cut, long_length=1)
    copied = ["items.parquet", "report.json", "yardstick.json"]
    copied += [path.relative_to(folder).as_posix() for path in folder.glob("vocabulary/*")]
    copied.append("vectors/image.npy")
    assert len(copied) == 3 + 6 + 1
    for name in copied:
        assert (cut / name).read_bytes() == (folder / name).read_bytes()
    report = check(cut)
    assert (report.errors, report.warnings) == ([], [])
    (note,) = report.notes
    assert note.startswith("long sequences are cut to the 1 most recent behaviours of each category of a page (")
    whole, opened = Dataset.open(folder), Dataset.open(cut)
    assert opened.schema.cut_long_length == 1
    assert (opened.numbers, opened.digests) == (whole.numbers, whole.digests)
    any_long = {}
    for split in SPLITS:
        left, were = opened.splits[split], whole.splits[split]
        assert (left.pages, left.items, left.clicks, left.first_time) == (
            *(were.pages, were.items, were.clicks, were.first_time),
        )
        any_long[split] = sum(map(bool, pq.read_table(cut / split)["long_items"].to_pylist()))
        assert left.pages_with_long == any_long[split]
    assert sum(map(bool, pq.read_table(folder / "train")["long_items"].to_pylist())) > any_long["train"] > 0
    assert read_yardstick(opened) == read_yardstick(whole) != {}
    for one, other in zip(heuristic_scores(cut), heuristic_scores(folder), strict=True):
        np.testing.assert_array_equal(one[1], other[1])


def test_types_parts_and_row_groups_stay_as_another_program_wrote_them(make_dataset: Make, tmp_path: Path) -> None:
    folder = make_dataset()
    source = folder / "train" / "part-00000.parquet"
    table = pq.read_table(source)
    small = pa.list_(pa.field("element", pa.int32()))
    for name in ("long_items", "items"):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(small))
    lists = table["long_items"].to_pylist()
    lists[5], times = None, table["long_times"].to_pylist()
    times[5] = None
    for name, values in (("long_items", lists), ("long_times", times)):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, pa.array(values, table.schema.field(name).type))
    source.unlink()
    (folder / "train" / "day=1").mkdir()
    with pq.ParquetWriter(folder / "train" / "day=1" / "a.parquet", table.schema, compression="snappy") as writer:
        for start, pages in ((0, 40), (40, 0), (40, 56)):  # an empty row group counts in the order of pages
            writer.write_table(table.slice(start, pages))
    check(folder, write_stats=True)
    cut_folder(folder, tmp_path / "cut", long_length=2)
    with pq.ParquetFile(tmp_path / "cut" / "train" / "day=1" / "a.parquet") as file:
        assert file.schema_arrow.equals(table.schema)
        assert [file.metadata.row_group(group).num_rows for group in range(3)] == [40, 0, 56]
    assert check(tmp_path / "cut").errors == []


def test_a_checkpoint_of_the_whole_folder_fits_the_cut_one_and_the_other_way_round(
    make_dataset: Make, tmp_path: Path
) -> None:
    folder = make_dataset()
    cut_folder(folder, tmp_path / "cut", long_length=2)
    whole, cut = Dataset.open(folder), Dataset.open(tmp_path / "cut")
    assert whole.schema == cut.schema
    for resuming in (False, True):  # the batches are the same, in the same order
        check_same_data(data_identity(whole), cut, resuming)
        check_same_data(data_identity(cut), whole, resuming)


def test_a_run_continues_on_the_cut_copy_until_its_pages_change(make_dataset: Make, tmp_path: Path) -> None:
    folder, cut = make_dataset(), tmp_path / "cut"
    shutil.rmtree(folder / "vocabulary")  # nothing but the pages tells what its ids mean
    check(folder, write_stats=True)
    saved = data_identity(Dataset.open(folder))
    cut_folder(folder, cut, long_length=2)
    check(cut, write_stats=True)  # nothing has changed
    check_same_data(saved, Dataset.open(cut), resuming=True)
    options: dict[str, Any] = {"batch_pages": 32, "short_length": 2, "long_length": 2, "seed": 1}
    whole, shorter = (PageBatches(Dataset.open(place), "train", **options) for place in (folder, cut))
    assert whole.stream == shorter.stream
    path = cut / "train" / "part-00000.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(DataError, match=r"part-00000\.parquet was changed after stats\.json was written"):
        check_same_data(saved, Dataset.open(cut), resuming=True)
    check(cut, write_stats=True)
    with pytest.raises(DataError, match=r"files\.train/: "):
        check_same_data(saved, Dataset.open(cut), resuming=True)


def test_a_cut_folder_can_be_cut_further_and_no_less(make_dataset: Make, tmp_path: Path) -> None:
    folder = make_dataset()
    cut_folder(folder, tmp_path / "three", long_length=3)
    cut_folder(tmp_path / "three", tmp_path / "one", long_length=1)
    cut_folder(folder, tmp_path / "at once", long_length=1)
    for split in SPLITS:
        assert pq.read_table(tmp_path / "one" / split).equals(pq.read_table(tmp_path / "at once" / split))
    with pytest.raises(OptionError, match=r"^long_length is 4, but .*/three is itself cut to 3 .*: make it 3 or less"):
        cut_folder(tmp_path / "three", tmp_path / "four", long_length=4)


def bad_item(folder: Path) -> None:
    path = folder / "test" / "part-00000.parquet"
    table = pq.read_table(path)
    lists = table["long_items"].to_pylist()
    lists[next(at for at, items in enumerate(lists) if items)][0] = 61
    place = table.schema.get_field_index("long_items")
    pq.write_table(table.set_column(place, "long_items", pa.array(lists, table["long_items"].type)), path)
    accept_changes(folder)


def changed_since(folder: Path) -> None:
    path = folder / "test" / "part-00000.parquet"
    pq.write_table(pq.read_table(path), path, row_group_size=3)


REFUSED: dict[str, tuple[Callable[[Path], object], dict[str, Any], str]] = {
    "a bad id": (bad_item, {}, r"row \d+, column long_items: 61 is not a row of table 'item'"),
    "changed files": (changed_since, {}, r"test/part-00000\.parquet was changed after stats\.json was written"),
    "no stats": (lambda folder: (folder / "stats.json").unlink(), {}, r"stats\.json is missing"),
    "no behaviours": (lambda folder: None, {"long_length": 0}, r"^long_length is 0: it must be 1 or more$"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_cut_is_one_line_and_leaves_nothing(what: str, make_dataset: Make, tmp_path: Path) -> None:
    damage, options, message = REFUSED[what]
    folder, out = make_dataset(), tmp_path / "cut"
    damage(folder)
    with pytest.raises((DataError, OptionError), match=message) as error:
        cut_folder(folder, out, **{"long_length": 2, **options})
    assert "\n" not in str(error.value)
    assert not out.exists() and not part_of(out).exists()


def test_a_place_that_is_taken_or_in_the_source_is_refused(make_dataset: Make, tmp_path: Path) -> None:
    folder = make_dataset()
    before = sorted(folder.rglob("*"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(DataError, match=r"full: exists and is not empty; choose another folder$"):
        cut_folder(folder, tmp_path / "full", long_length=2)
    for place in (folder, folder / "train" / "cut"):
        with pytest.raises(DataError, match=r"is in the folder that is read; write to a place outside"):
            cut_folder(folder, place, long_length=2)
    assert sorted(folder.rglob("*")) == before


def test_without_vocabularies_there_is_nothing_of_them_to_copy(make_dataset: Make, tmp_path: Path) -> None:
    folder = make_dataset()
    shutil.rmtree(folder / "vocabulary")
    check(folder, write_stats=True)
    cut_folder(folder, tmp_path / "cut", long_length=2)
    assert not (tmp_path / "cut" / "vocabulary").exists()
    assert json.loads((tmp_path / "cut" / "stats.json").read_text())["digests"] == {}


@pytest.mark.parametrize("mark", ["cut_long_length: 50\n", ""])
def test_a_mark_that_was_changed_by_hand_is_refused_and_no_longer_the_source(
    make_dataset: Make, tmp_path: Path, mark: str
) -> None:
    folder, cut = make_dataset(), tmp_path / "cut"
    cut_folder(folder, cut, long_length=2)
    schema = cut / "schema.yaml"
    schema.write_text(schema.read_text().replace("cut_long_length: 2\n", mark))
    with pytest.raises(DataError, match=r"cut_long_length is (50|not there), and was 2 when stats\.json was written"):
        Dataset.open(cut)
    check(cut, write_stats=True)
    assert Dataset.open(cut).fingerprint("train") != Dataset.open(folder).fingerprint("train")
