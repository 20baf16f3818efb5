"""`ccn compare --leave_out`: what can be left out, which runs follow, what is reported, and with real runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from optuna.distributions import FloatDistribution
from scipy import stats

from lightning_ccn.cli import main
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.file_lock import FileLock
from lightning_ccn.data.leave_out import ValueCounts
from lightning_ccn.errors import DataError, OptionError
from lightning_ccn.studies.comparison.cell import Cells
from lightning_ccn.studies.comparison.left_out import (
    LOCK,
    by_value,
    make_folders,
    names_of_values,
    refuse_other_pages,
    values_to_leave_out,
)
from lightning_ccn.studies.comparison.protocol import Cell, LeftOut, Protocol, Rates
from lightning_ccn.studies.comparison.study import Entry, Study
from lightning_ccn.training.display import Display

ROOT = Path(__file__).parents[3]
CONFIGS = {name: ROOT / f"conf/model/{name}.yaml" for name in ("sim", "ccn")}
LEFT_OUT = (LeftOut("city", 1), LeftOut("city", 3))
Make = Callable[..., Path]
Edit = Callable[..., Path]


# What can be left out


def test_the_values_are_those_of_the_pages_without_the_unknown_one(make_dataset: Make) -> None:
    found = values_to_leave_out(Dataset.open(make_dataset()), "city")
    assert list(found) == [1, 2, 3]
    assert all(0 < counts.clicks < counts.items for counts in found.values())


def city(columns: dict[str, list], change: Callable[[int], int]) -> None:
    columns["city"] = [change(value) for value in columns["city"]]


@pytest.mark.parametrize(
    ("column", "split", "change", "message"),
    [
        ("scenario", "", None, "has no profile feature of this name with one value per page; it has user, city"),
        ("interests", "", None, "has no profile feature of this name with one value per page"),
        ("time", "", None, "has no profile feature of this name with one value per page"),
        ("", "", None, "has no profile feature of this name with one value per page"),
        ("user", "", None, "has more than 100 values"),
        ("city", "all", lambda value: min(value, 1), "has 1 value of it besides 0"),
        ("city", "test", lambda value: min(value, 2), "0 of 0 test items of value 3 are clicked, so it has no AUC"),
        ("city", "train", lambda value: 1, "/train have the value 1, so nothing is left when it is left out"),
    ],
)
def test_what_cannot_be_left_out_is_refused_in_one_line(
    column: str, split: str, change: Callable[[int], int], message: str, make_dataset: Make, edit: Edit
) -> None:
    folder = make_dataset(users=200, pages={"train": 300, "validation": 24, "test": 24})
    for name in ("train", "validation", "test"):
        if split in (name, "all"):
            edit(folder, name, lambda columns: city(columns, change))
    with pytest.raises(OptionError, match=f"^--leave_out {column}: ") as caught:
        values_to_leave_out(Dataset.open(folder), column)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_sensitivity_analysis_is_not_of_left_out_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "--data.folder", str(tmp_path), "--output", str(tmp_path / "out"), "--leave_out", "city"]
    assert main([*words, "--sensitivity_seeds", "1"]) == 2
    assert "--sensitivity_seeds 1: its runs are tested on all values" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_values_are_called_by_their_original_ids_unless_these_are_long(make_dataset: Make) -> None:
    dataset = Dataset.open(make_dataset())
    assert names_of_values(dataset, "city", [1, 3]) == {1: "1000", 3: "1002"}
    file, ids = dataset.folder / "vocabulary/city.parquet", pq.read_table(dataset.folder / "vocabulary/city.parquet")
    column = (np.arange(len(ids)) + 10**18).astype(np.int64)
    pq.write_table(ids.set_column(0, "id", [column]), file)
    assert names_of_values(dataset, "city", [1, 3]) == {1: "1", 3: "3"}


# The folders


def test_folders_are_made_once_and_those_of_other_pages_are_refused(
    make_dataset: Make, edit: Edit, tmp_path: Path
) -> None:
    folder, cells = make_dataset(), Cells(tmp_path / "out/cells", [], CONFIGS)
    said: list[str] = []
    make_folders(cells, Dataset.open(folder), LEFT_OUT, said.append)
    assert [line.split("/")[-1] for line in said] == ["city-1: all but city 1", "city-3: all but city 3"]
    assert set(pq.read_table(cells.data(LEFT_OUT[1]) / "train")["city"].to_pylist()) == {0, 1, 2}
    make_folders(cells, Dataset.open(folder), LEFT_OUT, said.append)
    assert len(said) == 2
    edit(folder, "train", lambda columns: columns["trigger"].__setitem__(0, 5))
    with pytest.raises(DataError, match=f"{cells.data(LEFT_OUT[0])}: was not made of the pages"):
        make_folders(cells, Dataset.open(folder), LEFT_OUT, said.append)


def test_finished_runs_of_other_pages_are_refused(make_dataset: Make, edit: Edit, tmp_path: Path) -> None:
    folder, cells = make_dataset(), Cells(tmp_path / "out/cells", [], CONFIGS)
    cell = Cell("sim", f"without-{LEFT_OUT[0].folder}-seed101", (), left_out=LEFT_OUT[0])
    make_folders(cells, Dataset.open(folder), LEFT_OUT, lambda line: None)
    cells.path(cell).mkdir(parents=True)
    cells.finish(cell, 0, 0.0)
    refuse_other_pages(cells, Dataset.open(folder), LEFT_OUT)
    edit(folder, "train", lambda columns: columns["trigger"].__setitem__(0, 5))
    with pytest.raises(DataError, match=r"this run learned from other pages than .* has now: give the"):
        refuse_other_pages(cells, Dataset.open(folder), LEFT_OUT)


def test_a_process_that_makes_the_folders_is_waited_for(
    make_dataset: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, cells = Dataset.open(make_dataset()), Cells(tmp_path / "out/cells", [], CONFIGS)
    place = cells.data(LEFT_OUT[0]).parent
    place.mkdir(parents=True)
    held: list[FileLock] = []
    monkeypatch.setattr("lightning_ccn.data.file_lock.fcntl.lockf", refused_once(held))
    monkeypatch.setattr("lightning_ccn.studies.comparison.left_out.time.sleep", lambda _: None)
    said: list[str] = []
    make_folders(cells, dataset, LEFT_OUT, said.append)
    assert said[0].startswith("waiting for ") and len(said) == 3
    assert (place / LOCK).exists()


def refused_once(seen: list[Any]) -> Callable[..., None]:
    """A lock that another process holds at the first try. A lock of this process would not stop itself."""

    def lockf(*_: Any) -> None:
        seen.append(None)
        if len(seen) == 1:
            raise BlockingIOError(11, "held")

    return lockf


# The runs and the report


def finished(folder: Path, aucs: dict[str, dict[int, list[float]]]) -> Study:
    """A comparison with invented AUCs, by system and left-out value, of seeds 101, 102, ...: nothing was trained."""
    seeds = tuple(range(101, 101 + len(next(iter(aucs["sim"].values())))))
    entry = Entry(Display(), Rates(0.02, 0.05), table_parameters=0, dense_parameters=0)
    cells = Cells(folder / "cells", [], CONFIGS)
    study = Study(Protocol(seeds, trials=1, sensitivity_seeds=0, left_out=LEFT_OUT), dict.fromkeys(aucs, entry), cells)
    for system, of_values in aucs.items():
        for seed, cell in study.protocol.reported(system, entry.rates, {}):
            assert cell.left_out is not None
            path = cells.path(cell)
            path.mkdir(parents=True)
            value = of_values[cell.left_out.value][seed - 101]
            metrics = {"auc": value, "train_items_per_second": 1.0, "attainable_auc": 0.7 + cell.left_out.value / 100}
            (path / "metrics.json").write_text(json.dumps(metrics))
            (path / "metrics.csv").write_text("step,train_ce,val_auc\n")
            cells.finish(cell, code=0, started=0.0)
    return study


AUCS = {
    "sim": {1: [0.60, 0.62], 3: [0.70, 0.71]},
    "ccn": {1: [0.61, 0.65], 3: [0.72, 0.75]},
}


def test_every_seed_is_run_for_every_value_and_a_cell_knows_its_value(tmp_path: Path) -> None:
    study = finished(tmp_path, AUCS)
    assert study.ready() == ([], True)
    names = sorted(path.name for path in (tmp_path / "cells/ccn").iterdir() if path.is_dir())
    assert names == [f"without-city-{value}-seed{seed}" for value in (1, 3) for seed in (101, 102)]
    file = tmp_path / "cells/ccn/without-city-3-seed102/cell.json"
    saved = json.loads(file.read_text())
    assert saved["left_out"] == {"city": 3}
    file.write_text(json.dumps({**saved, "left_out": {"city": 2}}))
    with pytest.raises(DataError, match=r"trained with other options \(what is left out\)"):
        study.ready()


def test_trials_use_all_data_once_whatever_is_left_out() -> None:
    space = {"sim": {"learning_rates": FloatDistribution(0.5, 4)}}
    protocol = Protocol((1, 2), trials=3, spaces=space, left_out=LEFT_OUT)
    tried = [cell for _, cell in protocol.search("sim", Rates(0.02, 0.05))]
    assert [(cell.id, cell.left_out) for cell in tried] == [(f"trial{number}", None) for number in range(3)]
    reported = [cell.left_out for _, cell in protocol.reported("sim", Rates(0.02, 0.05), {})]
    assert reported == [LEFT_OUT[0]] * 2 + [LEFT_OUT[1]] * 2


def test_the_difference_over_all_is_paired_within_values_and_its_interval_is_over_values(
    make_dataset: Make, tmp_path: Path
) -> None:
    values = {1: ValueCounts({"test": 7}, 50, 10), 3: ValueCounts({"test": 9}, 60, 12)}
    found = by_value(finished(tmp_path / "out", AUCS), "sim", Dataset.open(make_dataset()), values)
    sim, ccn = found["systems"]
    assert sim["versus"] is None
    assert (sim["summary"]["auc"]["mean"], sim["summary"]["auc"]["runs"]) == (pytest.approx((0.61 + 0.705) / 2), 2)
    assert sim["summary"]["auc"]["se"] == pytest.approx((0.705 - 0.61) / 2)
    per_value = [0.02, 0.03]  # means over the seeds
    versus, reach = ccn["versus"]["auc"], stats.t.ppf(0.975, 1) * 0.005
    assert versus["difference"] == pytest.approx(0.025) and versus["pairs"] == 2
    assert (versus["low"], versus["high"]) == (pytest.approx(0.025 - reach), pytest.approx(0.025 + reach))
    assert versus["p"] == pytest.approx(stats.ttest_1samp(per_value, 0).pvalue)
    assert [(run["left_out"], run["seed"]) for run in ccn["runs"]] == [(1, 101), (1, 102), (3, 101), (3, 102)]
    entries = found["left_out"]["values"]
    assert [(e["value"], e["name"], e["pages"]["test"], e["clicks"]) for e in entries] == [
        (1, "1000", 7, 10),
        (3, "1002", 9, 12),
    ]
    for entry, difference in zip(entries, per_value, strict=True):
        assert entry["systems"][1]["versus"]["auc"]["difference"] == pytest.approx(difference)
        assert entry["bounds"] == {"attainable_auc": pytest.approx(0.7 + entry["value"] / 100)}
    assert found["bounds"] == {"attainable_auc": pytest.approx(0.72)}


@pytest.mark.slow
def test_a_comparison_leaves_out_every_value_and_goes_on_where_it_stopped(
    make_dataset: Make, edit: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = make_dataset(pages={"train": 96, "validation": 24, "test": 60}), tmp_path / "out"
    for split in ("train", "validation", "test"):
        edit(folder, split, lambda columns: city(columns, lambda value: value % 3))  # two values, and the unknown one
    words = ["compare", "--data.folder", str(folder), "--output", str(out), "--jobs", "2", "--leave_out", "city"]
    words += ["--systems", ",".join(map(str, CONFIGS.values())), "--seeds", "1", "--trials", "1"]
    words += ["--data.batch_pages", "32", "--data.workers", "0"]
    assert main([word if word != "city" else "scenario" for word in words]) == 2
    assert "--leave_out scenario: " in capsys.readouterr().err and not out.exists()
    assert main([*words, "--only_train"]) == 0
    lost = out / "cells/ccn/without-city-2-seed101"
    (lost / "cell.json").unlink()  # as if it had been killed
    capsys.readouterr()
    assert main(words) == 0
    said = capsys.readouterr().out
    assert said.count(": started") == 1 and "ccn without-city-2-seed101: started" in said
    assert "all but city" not in said
    assert "AUC on each city that training left out, and AUC - SIM" in said
    read = yaml.safe_load((lost / "config.yaml").read_text())["data"]["folder"]
    assert read == str(out / "left_out/city-2")
    report = json.loads((out / "compare.json").read_text())
    assert [entry["name"] for entry in report["left_out"]["values"]] == ["1000", "1001"]
    for at, entry in enumerate(report["left_out"]["values"]):
        for system, overall in zip(entry["systems"], report["systems"], strict=True):
            run = out / "cells" / system["name"] / f"without-city-{entry['value']}-seed101/metrics.json"
            auc = json.loads(run.read_text())["auc"]
            assert system["summary"]["auc"]["mean"] == overall["runs"][at]["metrics"]["auc"] == auc
    ccn = report["systems"][1]["versus"]["auc"]
    assert ccn["pairs"] == 2 and ccn["low"] < ccn["difference"] < ccn["high"]
    assert "Each city left out of training" in (out / "compare.html").read_text()
