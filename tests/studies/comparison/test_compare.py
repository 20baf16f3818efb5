"""`ccn compare` with real runs of `ccn fit` on a small dataset."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_ccn.cli import main
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.models import CCN, SIM
from lightning_ccn.sharding import find_tables
from lightning_ccn.studies.comparison.cell import Cells
from lightning_ccn.studies.comparison.protocol import Cell, Protocol, Rates, default_systems
from lightning_ccn.studies.comparison.study import Entry, Study
from lightning_ccn.studies.comparison.work import Work
from lightning_ccn.training.display import Display

ROOT = Path(__file__).parents[3]
CONFIGS = {name: ROOT / f"conf/model/{name}.yaml" for name in ("sim", "ccn")}
SMALL = ("--data.batch_pages", "32", "--data.workers", "0")


def compare(data: Path, output: Path, *further: str) -> int:
    systems = ",".join(str(config) for config in CONFIGS.values())
    place = ("--data.folder", str(data), "--output", str(output), "--jobs", "2")
    return main(["compare", *place, "--systems", systems, "--sensitivity_seeds", "0", *SMALL, *further])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.conftest import write_dataset

    return write_dataset(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two systems, two learning rates searched, two seeds: eight cells."""
    output = tmp_path_factory.mktemp("compare")
    assert compare(data, output, "--seeds", "2", "--scales", "0.5,2") == 0
    return output


def report(done: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((done / "compare.json").read_text())
    return found


def test_every_cell_is_a_run_folder_whose_metrics_are_reported(done: Path) -> None:
    for system in report(done)["systems"]:
        assert [run["seed"] for run in system["runs"]] == [101, 102]
        for run in system["runs"]:
            folder = done / "cells" / system["name"] / f"seed{run['seed']}"
            assert run["metrics"] == json.loads((folder / "metrics.json").read_text())
            assert yaml.safe_load((folder / "config.yaml").read_text())["seed_everything"] == run["seed"]
            assert len(run["curve"]["val_auc"]) > 0


def test_the_learning_rate_is_the_best_on_validation_of_those_tried_and_the_runs_have_it(done: Path) -> None:
    for system in report(done)["systems"]:
        tried = {row["scale"]: row["val_auc"] for row in system["search"]}
        assert set(tried) == {0.5, 2.0}
        assert system["scale"] == max(tried, key=lambda scale: tried[scale])
        config = yaml.safe_load((done / "cells" / system["name"] / "seed101" / "config.yaml").read_text())
        default = yaml.safe_load((ROOT / "conf/experiment/default.yaml").read_text())
        assert config["model"]["lr"] == pytest.approx(default["model"]["lr"] * system["scale"])
        of_tables = default["trainer"]["strategy"]["init_args"]["table_lr"]
        assert config["trainer"]["strategy"]["init_args"]["table_lr"] == pytest.approx(of_tables * system["scale"])


def test_a_search_never_reads_the_test_split(done: Path) -> None:
    metrics = json.loads((done / "cells/ccn/search-x2/metrics.json").read_text())
    assert "val_auc" in metrics and "auc" not in metrics


def test_differences_are_to_sim_over_the_same_seeds(done: Path) -> None:
    sim, ccn = report(done)["systems"]
    assert sim["versus"] is None
    difference = [c["metrics"]["auc"] - s["metrics"]["auc"] for c, s in zip(ccn["runs"], sim["runs"], strict=True)]
    assert ccn["versus"]["auc"]["difference"] == pytest.approx(sum(difference) / 2)
    assert ccn["versus"]["auc"]["pairs"] == 2


def test_parameters_are_counted_apart_in_tables_and_layers(data: Path, done: Path) -> None:
    dataset = Dataset.open(data)
    for found, system in zip(report(done)["systems"], (SIM(dataset), CCN(dataset)), strict=True):
        tables = {table.name: table.rows * table.dim for table in find_tables(system)}
        assert found["parameters"]["tables"] == sum(tables.values())
        layers = [p.numel() for name, p in system.named_parameters() if "embedding_bags" not in name]
        assert found["parameters"]["dense"] == sum(layers)


def test_another_baseline_needs_no_other_runs(data: Path, done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to_sim = report(done)["systems"][1]["versus"]["auc"]["difference"]
    assert compare(data, done, "--seeds", "2", "--scales", "0.5,2", "--baseline", "ccn") == 0
    said = capsys.readouterr().out
    assert "AUC - CCN" in said and "started" not in said
    assert report(done)["systems"][0]["versus"]["auc"]["difference"] == pytest.approx(-to_sim)
    assert compare(data, done, "--seeds", "2", "--scales", "0.5,2") == 0


def test_finished_cells_are_not_trained_again_and_an_unfinished_one_is(
    data: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = report(done)
    lost = done / "cells/sim/seed102"
    metrics = (lost / "metrics.json").read_bytes()
    (lost / "cell.json").unlink()  # as if it had been killed: this file is written last
    stamps = {path: path.stat().st_mtime_ns for path in done.glob("cells/*/*/cell.json")}
    capsys.readouterr()
    assert compare(data, done, "--seeds", "2", "--scales", "0.5,2") == 0
    said = capsys.readouterr().out
    assert "sim seed102: started" in said and said.count("started") == 1
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    again = json.loads((lost / "metrics.json").read_text())
    assert {k: v for k, v in again.items() if "second" not in k} == {
        k: v for k, v in json.loads(metrics).items() if "second" not in k
    }
    assert report(done)["systems"][1] == before["systems"][1]


def test_cells_of_other_options_are_refused_by_name(data: Path, done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(data, done, "--seeds", "2", "--scales", "0.5,2", "--model.final_lr", "0.5") == 2
    said = capsys.readouterr().err
    assert "cell.json" in said and "--model.final_lr" in said and "--output" in said


def test_one_system_for_all_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "--data.folder", str(data), "--output", str(tmp_path)]
    assert main([*words, "--model.system", "TAN"]) == 2
    assert "--model.system: would make all systems the same; name the systems" in capsys.readouterr().err


def test_a_system_that_cannot_run_is_refused_before_anything_is_trained(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(data, tmp_path / "out", "--model.system.init_args.heads", "7") == 2
    assert "heads" in capsys.readouterr().err
    assert not list(tmp_path.rglob("cells"))


@pytest.mark.parametrize(
    "wrong",
    [
        ("--seeds", "0"),
        ("--sensitivity_seeds", "-1"),
        ("--search_share", "1.5"),
        ("--scales", "1,0"),
        ("--jobs", "0"),
        ("--baseline", "din"),
    ],
    ids=lambda wrong: wrong[0],
)
def test_an_impossible_option_is_refused_by_name_and_value(
    wrong: tuple[str, str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(data, tmp_path / "out", *wrong) == 2
    assert f"{wrong[0]} " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_worker_that_waits_for_others_names_their_cells(tmp_path: Path) -> None:
    cells, cell = Cells(tmp_path, [], CONFIGS), Cell("sim", "seed1", ())
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        cells.path(cell).mkdir()
        cells.finish(cell, code=0, started=0.0)  # the other process is done

    with cells.claim(cell):
        Work(cells, lambda: ([] if cells.result(cell) else [cell], True), say).run(1)
    assert said == ["waiting for others to train sim seed1"]


def test_an_output_that_cannot_be_made_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert compare(data, tmp_path / "file" / "out") == 2
    assert f"--output {tmp_path}/file/out: cannot be made" in capsys.readouterr().err


def test_an_unknown_system_is_refused_with_the_known_ones(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "--data.folder", str(data), "--output", str(tmp_path), "--systems", "sim,deepfm"]) == 2
    said = capsys.readouterr().err
    assert "conf/model/deepfm.yaml" in said and "wide_deep" in said


def test_the_default_systems_are_the_files_of_conf_model_in_the_order_of_the_papers_table() -> None:
    systems = default_systems()
    assert set(systems) == {path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")}
    papers = ["wide_deep", "din", "sim", "dihn", "dian", "tan_bare", "tan_bounded", "tan"]
    papers += ["ccn_without_tsi", "ccn_without_attraction", "ccn_without_repulsion", "ccn"]
    assert [system for system in systems if system in papers] == papers


@pytest.mark.slow
def test_an_own_system_is_compared_from_any_folder_with_the_options_of_default_yaml(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(
        "display: {title: Mine, family: intent, paper_auc: 0.7}\n"
        "model: {system: {class_path: lightning_ccn.models.SIM}}\n"
    )
    one = ("--systems", "own.yaml,sim", "--quick", *SMALL)
    assert main(["compare", "--data.folder", str(data), "--output", "out", *one]) == 0
    own, sim = report(tmp_path / "out")["systems"]
    assert (own["name"], own["title"], own["family"], own["paper_auc"]) == ("own", "Mine", "intent", 0.7)
    assert (sim["name"], sim["title"], sim["family"], sim["paper_auc"]) == ("sim", "SIM", "plain", 0.7276)
    default = yaml.safe_load((ROOT / "conf/experiment/default.yaml").read_text())
    for system, config in (("own", "own.yaml"), ("sim", "conf/model/sim.yaml")):
        folder = tmp_path / "out/cells" / system / "seed101"
        saved = yaml.safe_load((folder / "config.yaml").read_text())
        assert saved["model"]["lr"] == default["model"]["lr"]
        assert saved["trainer"]["log_every_n_steps"] == default["trainer"]["log_every_n_steps"]
        options = json.loads((folder / "cell.json").read_text())["options"]
        configs = [value for option, value in pairwise(options) if option == "--config"]
        assert configs == ["conf/experiment/default.yaml", config]  # the same from any folder


def test_the_report_names_its_metrics_and_its_command(done: Path) -> None:
    found = report(done)
    assert {"auc", "page_gauc", "logloss", "normalized_entropy", "calibration"} <= set(found["metrics"])
    assert found["metrics"]["auc"] == "AUC"
    assert found["command"].startswith(f"ccn compare --data.folder {found['dataset']['folder']}")


def test_a_cell_that_fails_is_named_with_the_last_line_of_its_log(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = ("--systems", str(CONFIGS["sim"]), "--quick", "--model.lr", "1e30")
    assert main(["compare", "--data.folder", str(data), "--output", str(tmp_path), *one, *SMALL]) == 2
    said = capsys.readouterr().err
    assert "sim/seed101/fit.log" in said and "loss is not finite" in said
    assert not (tmp_path / "compare.json").exists()


def test_a_stopped_comparison_leaves_no_process_and_no_finished_cell(data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lightning_ccn.cli", "compare", "--data.folder", str(data), "--output"]
    one = [str(tmp_path), "--systems", str(CONFIGS["sim"]), "--quick", *SMALL, "--trainer.max_epochs", "1000"]
    process = subprocess.Popen([*command, *one], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "started" in line:
            break
    process.terminate()
    _, said = process.communicate()
    assert process.returncode == 130 and "the same command" in said
    cells, cell = Cells(tmp_path / "cells", [], CONFIGS), Cell("sim", "seed101", ())
    assert cells.result(cell) is None
    with cells.claim(cell) as lock:  # the cell's process has ended
        assert lock is not None


def test_learning_rates_of_an_earlier_comparison_are_used_without_a_search(
    data: Path, done: Path, tmp_path: Path
) -> None:
    assert compare(data, tmp_path, "--seeds", "1", "--scales_from", str(done)) == 0
    assert not list(tmp_path.glob("cells/*/search-*"))
    assert [s["scale"] for s in report(tmp_path)["systems"]] == [s["scale"] for s in report(done)["systems"]]


def test_a_cell_stays_locked_while_the_process_that_claimed_it_or_its_child_lives(tmp_path: Path) -> None:
    cells, cell = Cells(tmp_path, [], CONFIGS), Cell("sim", "seed1", ())
    with cells.claim(cell) as lock:
        assert lock is not None
        with cells.claim(cell) as other:
            assert other is None
        orphan = subprocess.Popen(["sleep", "60"], pass_fds=[lock])
    with cells.claim(cell) as other:
        assert other is None
    orphan.kill()
    orphan.wait()
    with cells.claim(cell) as free:
        assert free is not None


def test_reported_runs_wait_only_for_the_search_of_their_own_system(tmp_path: Path) -> None:
    cells = Cells(tmp_path, [], CONFIGS)
    entry = Entry(Display(), Rates(0.02, 0.05), table_parameters=0, dense_parameters=0)
    study = Study(Protocol(seeds=(1, 2), sensitivity_seeds=0), {"sim": entry, "ccn": entry}, cells)
    for scale, cell in study.protocol.search("sim", entry.rates):
        cells.path(cell).mkdir(parents=True)
        (cells.path(cell) / "metrics.json").write_text(json.dumps({"val_auc": 0.5 + 0.1 * (scale == 2)}))
        cells.finish(cell, code=0, started=0.0)
    ready, complete = study.ready()
    assert [(cell.system, cell.id) for cell in ready] == [
        *(("ccn", f"search-x{scale}") for scale in ("0.5", "1", "2", "4")),
        *(("sim", f"seed{seed}") for seed in (1, 2)),
    ]
    assert "--model.lr=0.04" in ready[-1].options
    assert not complete
