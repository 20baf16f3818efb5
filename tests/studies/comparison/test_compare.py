"""`ccn compare` with real runs of `ccn fit` on a small dataset."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow.parquet as pq
import pytest
import yaml
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from lightning_ccn.cli import main
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.models import CCN, SIM
from lightning_ccn.sharding import find_tables
from lightning_ccn.studies.comparison import work
from lightning_ccn.studies.comparison.cell import Cells
from lightning_ccn.studies.comparison.compare import check
from lightning_ccn.studies.comparison.protocol import Cell, Protocol, Rates, default_systems
from lightning_ccn.studies.comparison.study import Entry, Study
from lightning_ccn.studies.comparison.work import Work
from lightning_ccn.training.display import Display
from tests.models.pages import planted

ROOT = Path(__file__).parents[3]
CONFIGS = {name: ROOT / f"conf/model/{name}.yaml" for name in ("sim", "ccn")}
SEARCH = ("--trials", "2")
SMALL = ("--data.batch_pages", "32", "--data.workers", "0")


def compare(data: Path, output: Path, *further: str) -> int:
    systems = ",".join(str(config) for config in CONFIGS.values())
    place = ("--data.folder", str(data), "--output", str(output), "--jobs", "2")
    return main(["compare", *place, "--systems", systems, "--sensitivity_seeds", "0", *SMALL, *further])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.conftest import write_dataset

    return write_dataset(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause between two checks of other processes is short."""
    monkeypatch.setattr(work, "PAUSE", 0.05)


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two systems with two trials, of which both run with two more seeds, and two seeds: sixteen cells."""
    output = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "PAUSE", 0.05)
        assert compare(data, output, "--seeds", "2", *SEARCH) == 0
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


def test_the_settings_are_the_best_on_validation_of_those_tried_and_the_runs_have_them(done: Path) -> None:
    default = yaml.safe_load((ROOT / "conf/experiment/default.yaml").read_text())
    for system in report(done)["systems"]:
        first, other = system["search"]
        assert first["settings"] == {} and other["settings"]
        for number, trial in enumerate(system["search"]):
            for value, run in zip(trial["val_aucs"], ("", "-seed1", "-seed2"), strict=True):
                folder = done / "cells" / system["name"] / f"trial{number}{run}"
                assert value == json.loads((folder / "metrics.json").read_text())["val_auc"]
                assert rates_of(folder)[0] == pytest.approx(default["model"]["lr"] * factor(trial["settings"]))
        assert system["settings"] == max(system["search"], key=lambda trial: sum(trial["val_aucs"]))["settings"]
        of_tables = default["trainer"]["strategy"]["init_args"]["table_lr"]
        chosen = factor(system["settings"])
        expected = pytest.approx((default["model"]["lr"] * chosen, of_tables * chosen), rel=1e-4)
        assert rates_of(done / "cells" / system["name"] / "seed101") == expected


def factor(settings: dict[str, Any]) -> float:
    return float(settings.get("learning_rates", 1))


def rates_of(folder: Path) -> tuple[float, float]:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    return config["model"]["lr"], config["trainer"]["strategy"]["init_args"]["table_lr"]


def test_a_trial_changes_options_of_its_own_system_alone(done: Path) -> None:
    sim, ccn = report(done)["systems"]
    weight = "model.system.init_args.contrast_weight"
    assert all(weight in trial["settings"] for trial in ccn["search"][1:])
    assert not any(weight in trial["settings"] for trial in sim["search"])
    config = yaml.safe_load((done / "cells/ccn/trial1/config.yaml").read_text())
    assert config["model"]["system"]["init_args"]["contrast_weight"] == ccn["search"][1]["settings"][weight]


def test_optunas_journal_holds_every_trial_with_its_value_once(done: Path) -> None:
    storage = JournalStorage(JournalFileBackend(str(done / "search.journal")))
    for system in report(done)["systems"]:
        trials = optuna.load_study(study_name=system["name"], storage=storage).trials
        found = [(trial.params, trial.value) for trial in trials]
        assert found == [(trial["settings"], pytest.approx(trial["val_aucs"][0])) for trial in system["search"]]


def test_a_seed_draws_the_weights_and_the_order_of_the_pages(done: Path) -> None:
    for seed in (101, 102):
        config = yaml.safe_load((done / f"cells/sim/seed{seed}/config.yaml").read_text())
        assert config["seed_everything"] == config["data"]["seed"] == seed


def test_the_error_of_a_difference_covers_the_pages_of_the_test_split(data: Path, done: Path) -> None:
    ccn = report(done)["systems"][1]
    effects = []
    for seed in (101, 102):
        files = [np.load(done / f"cells/{name}/seed{seed}/page_effects.npz") for name in ("ccn", "sim")]
        effects.append(files[0]["auc"].astype(float) - files[1]["auc"])
    assert effects[0].shape == (Dataset.open(data).splits["test"].pages,)
    users = pq.read_table(data / "test", columns=["user"])["user"].to_numpy()  # in the order of the test
    of_users = np.bincount(users, weights=np.mean(effects, axis=0))
    assert len(np.unique(users)) < len(users) and users.min() > 0
    versus = ccn["versus"]["auc"]
    assert versus["page_se"] == pytest.approx(np.sqrt((of_users**2).sum()))
    assert versus["se"] == pytest.approx(np.hypot(versus["run_se"], versus["page_se"]))
    assert versus["low"] < versus["difference"] < versus["high"]


def test_a_search_never_reads_the_test_split(done: Path) -> None:
    metrics = json.loads((done / "cells/ccn/trial1/metrics.json").read_text())
    assert "val_auc" in metrics and "auc" not in metrics


def test_differences_are_to_sim_over_the_same_seeds(done: Path) -> None:
    sim, ccn = report(done)["systems"]
    assert sim["versus"] is None
    difference = [c["metrics"]["auc"] - s["metrics"]["auc"] for c, s in zip(ccn["runs"], sim["runs"], strict=True)]
    assert ccn["versus"]["auc"]["difference"] == pytest.approx(sum(difference) / 2)
    assert ccn["versus"]["auc"]["pairs"] == 2


def test_parameters_are_counted_apart_in_tables_and_layers(data: Path, done: Path) -> None:
    dataset = Dataset.open(data)
    for found, kind in zip(report(done)["systems"], (SIM, CCN), strict=True):
        own = "model.system.init_args."
        options = {name.removeprefix(own): value for name, value in found["settings"].items() if name.startswith(own)}
        system = kind(dataset, **{name: yaml.safe_load(str(value)) for name, value in options.items()})
        tables = {table.name: table.rows * table.dim for table in find_tables(system)}
        assert found["parameters"]["tables"] == sum(tables.values())
        layers = [p.numel() for name, p in system.named_parameters() if "embedding_bags" not in name]
        assert found["parameters"]["dense"] == sum(layers)


def test_another_baseline_needs_no_other_runs(data: Path, done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = report(done)
    to_sim = before["systems"][1]["versus"]["auc"]["difference"]
    assert compare(data, done, "--seeds", "2", *SEARCH, "--baseline", "ccn") == 0
    said = capsys.readouterr().out
    assert "AUC - CCN" in said and "started" not in said
    assert report(done)["systems"][0]["versus"]["auc"]["difference"] == pytest.approx(-to_sim)
    (done / "compare.json").write_text(json.dumps(before))  # for the next tests


def test_finished_cells_are_not_trained_again_and_an_unfinished_one_is(
    data: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = report(done)
    lost = done / "cells/sim/seed102"
    metrics = (lost / "metrics.json").read_bytes()
    (lost / "cell.json").unlink()  # as if it had been killed: this file is written last
    stamps = {path: path.stat().st_mtime_ns for path in done.glob("cells/*/*/cell.json")}
    capsys.readouterr()
    assert compare(data, done, "--seeds", "2", *SEARCH) == 0
    said = capsys.readouterr().out
    assert "sim seed102: started" in said and said.count("started") == 1
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    again = json.loads((lost / "metrics.json").read_text())
    assert {k: v for k, v in again.items() if "second" not in k} == {
        k: v for k, v in json.loads(metrics).items() if "second" not in k
    }
    assert report(done)["systems"][1] == before["systems"][1]


def test_cells_of_other_options_are_refused_by_name(data: Path, done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(data, done, "--seeds", "2", *SEARCH, "--model.final_lr", "0.5") == 2
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
        ("--trials", "0"),
        ("--finalists", "0"),
        ("--first_seed", "2"),
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


def test_a_system_warns_once_however_many_settings_are_tried(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    pages = planted(1, pages=50)
    folder = replace(pages, schema=replace(pages.schema, category=None)).write(tmp_path / "data")
    check(["--data.folder", str(folder), "--output", str(tmp_path / "out"), "--systems", "sim", *SMALL])
    said = [str(warning.message) for warning in recwarn if "has no category" in str(warning.message)]
    assert len(said) == 1 and said[0].startswith("SIM: ")


@pytest.mark.parametrize(
    ("gpus", "shared", "added"), [("", [], True), ("0", [], False), ("", ["--data.workers=2"], False)]
)
def test_cells_on_cpus_read_their_own_batches(
    gpus: str, shared: list[str], added: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.setattr("lightning_ccn.studies.comparison.cell.start_ccn", lambda words, *_: started.append(words))
    cells, cell = Cells(tmp_path, shared, CONFIGS), Cell("sim", "seed1", ())
    cells.path(cell).parent.mkdir()
    cells.start(cell, 0, {})
    assert ("--data.workers" in started[0]) == added


@pytest.mark.usefixtures("soon")
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


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_trained(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(data, Path("/proc/self/fd")) == 2  # where nobody makes files, not even root
    said = capsys.readouterr()
    assert "--output /proc/self/fd: cannot be written (" in said.err and "started" not in said.out


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


def test_settings_of_an_earlier_comparison_are_used_without_a_search(data: Path, done: Path, tmp_path: Path) -> None:
    assert compare(data, tmp_path, "--seeds", "1", "--settings_from", str(done)) == 0
    assert not list(tmp_path.glob("cells/*/trial*"))
    assert [s["settings"] for s in report(tmp_path)["systems"]] == [s["settings"] for s in report(done)["systems"]]


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
    spaces = {name: {"learning_rates": FloatDistribution(0.5, 4, log=True)} for name in ("sim", "ccn")}
    protocol = Protocol((1, 2), trials=3, spaces=spaces, finalists=2, sensitivity_seeds=0)
    study = Study(protocol, {"sim": entry, "ccn": entry}, cells)
    of_ccn = [("ccn", f"trial{number}") for number in range(3)]
    tried = [settings for settings, _ in protocol.search("sim", entry.rates)]
    # trial 2 is best with the first seed, trial 1 in the mean of three
    for cell in ready_of(study, "sim"):
        finish(cells, cell, {"trial0": 0.5, "trial1": 0.6, "trial2": 0.62}[cell.id])
    assert [(cell.system, cell.id) for cell in study.ready()[0]] == [
        *((("sim", f"trial{number}-seed{seed}")) for number in (2, 1) for seed in (1, 2)),
        *of_ccn,
    ]
    for cell in ready_of(study, "sim"):
        finish(cells, cell, 0.61 if cell.id.startswith("trial1") else 0.59)
    ready, complete = study.ready()
    assert [(cell.system, cell.id) for cell in ready] == [*of_ccn, *(("sim", f"seed{seed}") for seed in (1, 2))]
    assert f"--model.lr={0.02 * tried[1]['learning_rates']:g}" in ready[-1].options
    assert not complete


def ready_of(study: Study, system: str) -> list[Cell]:
    return [cell for cell in study.ready()[0] if cell.system == system]


def finish(cells: Cells, cell: Cell, val_auc: float) -> None:
    cells.path(cell).mkdir(parents=True)
    (cells.path(cell) / "metrics.json").write_text(json.dumps({"val_auc": val_auc}))
    cells.finish(cell, code=0, started=0.0)


class SleepingCells(Cells):
    """Their process never ends by itself, and has reached an AUC of .5 in the middle of its epoch."""

    def start(self, cell: Cell, lock: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """Starts it."""
        self.path(cell).mkdir()
        (self.path(cell) / "metrics.csv").write_text("step,train_ce,val_auc\n9,.5,\n9,,.5\n")
        return subprocess.Popen(["sleep", "600"], pass_fds=[lock])


@pytest.mark.usefixtures("soon")
def test_a_trial_below_the_median_of_the_others_is_ended_early_and_never_chosen(tmp_path: Path) -> None:
    spaces = {"sim": {"learning_rates": FloatDistribution(0.5, 4, log=True)}}
    entry = Entry(Display(), Rates(0.02, 0.05), table_parameters=0, dense_parameters=0)
    cells = SleepingCells(tmp_path / "cells", [], CONFIGS)
    protocol = Protocol((1,), trials=6, spaces=spaces, finalists=1, sensitivity_seeds=0)
    study = Study(protocol, {"sim": entry}, cells)
    *others, last = (cell for _, cell in study.protocol.search("sim", entry.rates))
    for cell in others:
        cells.path(cell).mkdir(parents=True)
        value = 0.6 + 0.01 * (cell.trial == 3)
        (cells.path(cell) / "metrics.csv").write_text(f"step,train_ce,val_auc\n9,.5,\n9,,{value}\n19,,{value}\n")
        (cells.path(cell) / "metrics.json").write_text(json.dumps({"val_auc": value}))
        cells.finish(cell, code=0, started=0.0)
    said: list[str] = []
    Work(cells, lambda: (study.ready()[0] if cells.result(last) is None else [], True), said.append, study).run(1)
    assert "ended early: below the median" in said[-1]
    assert [trial["pruned"] for trial in study.trials("sim")] == [False] * 5 + [True]
    assert study.settings("sim") == study.trials("sim")[3]["settings"]
