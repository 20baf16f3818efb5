"""`ccn simulate`, end to end on a small world with real checkpoints, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from lightning_ccn.cli import main
from lightning_ccn.data.places import Place
from lightning_ccn.data.store_path import StorePath
from lightning_ccn.data.world import WorldConfig, generate
from lightning_ccn.studies.comparison.cell import RESULT
from lightning_ccn.studies.simulation.earlier import entries, refuse_another
from lightning_ccn.studies.simulation.lift import METRICS
from lightning_ccn.studies.simulation.log_share import log_shares
from lightning_ccn.studies.simulation.ranking import Ranking
from lightning_ccn.studies.simulation.report import COLUMNS, PAPER_LIFT
from lightning_ccn.studies.simulation.runs import named_runs, world_of
from tests.s3_server import upload

KNOBS = {"users": 150, "items": 300, "categories": 8, "sellers": 20, "promotions": 2}
PAGES = {"train_pages": 400, "validation_pages": 40, "test_pages": 60}
SMALL = ["--visits", "600", "--candidates", "40"]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(WorldConfig(**KNOBS, **PAGES), tmp_path_factory.mktemp("world") / "log")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def comparison(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `ccn compare`: a run of SIM, two of CCN (the second a copy of SIM's), and an unfinished one."""
    folder = tmp_path_factory.mktemp("comparison")
    for system, title in (("sim", "SIM"), ("ccn", "CCN")):
        place = ["--runs", str(folder / "cells"), "--experiment", system, "--run_id", "seed101"]
        quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--data.workers=0"]
        model = ["--model.system", f"lightning_ccn.models.{title}", "--model.system.dim=8", "--test_after_fit=false"]
        model += ["--model.order_weight=1"]
        model += ["--display.title=SIM", "--display.order=30"] if system == "sim" else []
        assert main(["fit", "--data.folder", str(log), "--data.batch_pages=16", *place, *quiet, *model]) == 0
        (folder / "cells" / system / "seed101" / RESULT).write_text("{}")
    shutil.copytree(folder / "cells" / "sim" / "seed101", folder / "cells" / "ccn" / "seed102")
    (folder / "cells" / "ccn" / "seed103").mkdir()
    return folder


@pytest.fixture(autouse=True)
def _no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the rendezvous that a run in this process leaves in the environment; child processes must not join it."""
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "simulate.json").read_text())
    return found


def test_a_comparison_becomes_the_papers_tables(comparison: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ways = ["--rank_by", "click", "order", "mix", "--click_share", ".25"]
    assert main(["simulate", "--comparison", str(comparison), *SMALL, *ways]) == 0
    said = capsys.readouterr().out
    assert f"left out because it is not finished: {comparison / 'cells/ccn/seed103'}" in said
    assert "As the paper's Table 3: lift over SIM in an unseen promotion, 600 visits" in said
    assert "paper +12.3%" in said and "paper +29.38%" in said and "undefined" not in said
    found = report(comparison)
    systems = {system["name"]: system for system in found["systems"]}
    trained = [f"{name}{by}" for by in ("", ":order", ":mix") for name in ("sim", "ccn")]
    references = [f"{name}{by}" for name in ("oracle", "attainable") for by in ("", ":order", ":mix")]
    assert list(systems) == [*trained, *references, "recommender"]
    assert systems["ccn:mix"]["title"] == "ccn, by click^0.25 order^0.75"
    assert systems["ccn:mix"]["paper_lift"] == {} and systems["ccn"]["paper_lift"].keys() == {"Table 3", "Table 4"}
    assert systems["sim:order"]["values"] != systems["sim"]["values"] and systems["sim:order"]["lift"] is not None
    orders = {name: s["lift"]["orders_per_user"]["lift"] for name, s in systems.items() if s["lift"]}
    assert max(orders, key=lambda name: orders[name]) in ("oracle", "oracle:order", "oracle:mix")
    assert 0 < found["log"]["alike_shown"] < found["log"]["alike_clicked"] < 1
    assert "Shown items of the trigger's category" in said and "In the log's test split" in said
    assert systems["sim"]["title"] == "SIM"
    assert systems["ccn"]["title"] == "ccn"  # its run has no display.title
    assert systems["sim"]["lift"] is None
    clicks = {name: s["lift"]["clicks_per_user"] for name, s in systems.items() if s["lift"]}
    assert max(clicks, key=lambda name: clicks[name]["lift"]) in ("oracle", "oracle:mix", "oracle:order")
    assert clicks["oracle"]["low"] > 0
    for system in systems.values():
        values = system["values"]
        assert values["ctr"] * values["cvr"] == pytest.approx(values["visit_purchase_rate"])
    # one model, scored twice, gives the same pages and clicks; and the value of pooled runs is their mean
    first, second = (run["values"] for run in systems["ccn"]["runs"])
    assert second == systems["sim"]["values"] != first
    for metric in ("ctr", "clicks_per_user", "orders_per_user"):
        assert systems["ccn"]["values"][metric] == pytest.approx((first[metric] + second[metric]) / 2)


@pytest.mark.slow
def test_a_checkpoint_of_another_model_is_refused_by_its_run(
    comparison: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(comparison / "cells" / "ccn" / "seed101", mixed)
    shutil.copy(comparison / "cells" / "sim" / "seed101" / "config.yaml", mixed)
    assert refusal(["--runs", f"sim={mixed}", "--output", str(tmp_path)], capsys).startswith(
        f"{mixed}: ccn predict failed: the checkpoint does not fit this model or these data (checkpoint -> here): "
        "system: CCN -> SIM"
    )


def refusal(options: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The command's error message, which is one line."""
    capsys.readouterr()
    assert main(["simulate", *options, *SMALL]) == 2
    line = capsys.readouterr().err
    assert line.startswith("ccn: error: ") and line.count("\n") == 1
    return line.removeprefix("ccn: error: ")


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., str]:
    """`fake("sim", data)` is NAME=FOLDER of a run that looks finished, but holds no model."""

    def make(name: str, data: Place, folder: str = "run") -> str:
        run = tmp_path / folder
        (run / "checkpoints" / "last.ckpt").mkdir(parents=True)
        (run / "config.yaml").write_text(f"data:\n  folder: {data}\n")
        return f"{name}={run}"

    return make


def test_data_that_are_not_synthetic_are_refused(
    dataset: Path, fake: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(["--runs", fake("sim", dataset), "--output", str(tmp_path)], capsys)
    assert said.startswith(f"{dataset}: these data do not come from a synthetic world (there is no world.yaml)")


def test_data_that_have_moved_are_refused(
    fake: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(["--runs", fake("sim", tmp_path / "gone"), "--output", str(tmp_path)], capsys)
    assert f"data.folder {tmp_path / 'gone'} does not exist" in said


def test_a_run_without_a_checkpoint_is_refused(
    log: Path, fake: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    word = fake("sim", log)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").rmdir()
    said = refusal(["--runs", word, "--output", str(tmp_path)], capsys)
    assert said.startswith(f"{tmp_path / 'run' / 'checkpoints' / 'last.ckpt'}: no such file")


def test_a_run_on_data_in_a_store_has_the_world_and_the_log_of_a_copy(
    log: Path, fake: Callable[..., str], bucket: StorePath
) -> None:
    folders = [log, upload(log, bucket / "log")]
    runs = named_runs([fake("sim", folder, f"run {at}") for at, folder in enumerate(folders)])
    (here, at_home), (there, in_store) = (world_of([run]) for run in runs)
    assert here.config == there.config
    category = here.catalogue.category
    assert log_shares(at_home, category) == log_shares(in_store, category)
    assert world_of(runs)[1].folder == log  # one world in two places


@pytest.mark.slow
def test_data_in_a_store_give_the_lifts_of_a_copy(
    log: Path, comparison: Path, bucket: StorePath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = upload(log, bucket / "log")
    run = shutil.copytree(comparison / "cells" / "sim" / "seed101", tmp_path / "run")
    config = (run / "config.yaml").read_text()
    assert f"folder: {log}\n" in config
    found = []
    for folder in (str(log), str(data)):
        (run / "config.yaml").write_text(config.replace(f"folder: {log}\n", f"folder: {folder}\n"))
        assert main(["simulate", "--runs", f"sim={run}", "--output", str(tmp_path / "out"), *SMALL]) == 0
        found.append(report(tmp_path / "out"))
        assert found[-1]["dataset"] == folder
        (tmp_path / "out" / "simulate.json").unlink()
    here, there = found
    assert (there["log"], there["systems"], there["world"]) == (here["log"], here["systems"], here["world"])


def test_data_that_are_not_in_their_store_are_refused(
    fake: Callable[..., str], bucket: StorePath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(["--runs", fake("sim", bucket / "gone"), "--output", str(tmp_path)], capsys)
    assert f"data.folder {bucket / 'gone'} does not exist" in said


def test_a_world_file_of_another_world_is_refused(
    log: Path, fake: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forged = tmp_path / "forged"
    shutil.copytree(log, forged)
    (forged / "world.yaml").write_text(WorldConfig(**KNOBS, **PAGES, seed=1).to_yaml())  # type: ignore[arg-type]
    said = refusal(["--runs", fake("sim", forged), "--output", str(tmp_path)], capsys)
    assert "world.yaml does not describe the world of this folder" in said


def test_runs_of_two_worlds_are_refused_with_the_difference(
    log: Path, fake: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = generate(WorldConfig(**KNOBS, **PAGES, click_rate=0.3), tmp_path / "other")  # type: ignore[arg-type]
    words = [fake("sim", log), fake("ccn", other, "second")]
    said = refusal(["--runs", *words, "--output", str(tmp_path)], capsys)
    assert "have different worlds (click_rate 0.2 and 0.3)" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runs/default/x"], "'runs/default/x' is not NAME=FOLDER"),
        (["sim=a", "sim=a"], "'sim=a' is given twice"),
        (["ccn=a", "tan=b"], "no run of 'sim', only of ccn, tan"),
        (["sim=a", "oracle=b"], "'oracle' is the name of a reference ranking"),
        (["sim=a", "sim:order=b"], "the name 'sim:order' has a colon"),
    ],
)
def test_wrong_run_names_are_refused(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(["--runs", *words, "--output", str(tmp_path)], capsys)


def test_a_run_without_an_order_head_is_not_ranked_by_orders(
    log: Path, fake: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--runs", fake("sim", log), "--output", str(tmp_path), "--rank_by", "click", "order"]
    assert refusal(words, capsys) == (
        f"{tmp_path / 'run'}: has no order head, so it cannot be ranked by orders: train it with --model.order_weight "
        "1, or rank by click\n"
    )


def test_a_share_of_clicks_without_a_mix_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for ways in ([], ["--rank_by", "click", "order"]):
        with pytest.raises(SystemExit) as ended:
            main(["simulate", "--runs", "sim=a", "--output", "out", "--click_share", "0.5", *ways])
        assert ended.value.code == 2
        assert "--click_share: only a mix has it; add --rank_by mix, or leave it out" in capsys.readouterr().err


def test_a_run_that_left_something_out_is_refused_with_what(
    log: Path, fake: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "left_out" / "city-2"
    words = ["--runs", fake("sim", copy), "--output", str(tmp_path)]
    (tmp_path / "run" / RESULT).write_text('{"left_out": {"city": 2}}')  # its data may be deleted after the training
    said = f"{tmp_path / 'run'}: its training left out city 2 (--leave_out), and a simulation shows pages of every"
    assert said in refusal(words, capsys)
    (tmp_path / "run" / RESULT).unlink()
    shutil.copytree(log, copy)
    (copy / "left_out.json").write_text('{"column": "city", "value": 2, "of": {}}')
    assert said in refusal(words, capsys)


def test_another_simulation_in_the_folder_is_refused_before_the_work(
    log: Path, fake: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--runs", fake("sim", log), fake("ccn", log, "other"), "--output", str(tmp_path)]
    file = tmp_path / "simulate.json"
    world = json.loads(json.dumps(asdict(WorldConfig.load(log))))
    ranked = {"by": "click", "click_share": 0.5}
    entry: dict[str, Any] = {"name": "sim", "ranked": ranked, "runs": [{"folder": str(tmp_path / "run")}]}
    systems = [entry, {"name": "oracle", "runs": []}]
    before = {"world": world, "visits": 600, "candidates": 40, "seed": 0, "systems": systems}

    def said(**changes: Any) -> str:
        file.write_text(json.dumps({**before, **changes}))
        found = refusal(words, capsys)
        assert file.exists()
        return found

    rest = "give another --output, or delete that file"
    lost = f"{file}: has another simulation, which would be lost"
    assert said(seed=7) == f"{lost} (seed 7, not 0): {rest}\n"
    assert said(world={**world, "click_rate": 0.5}).startswith(f"{lost} (world click_rate 0.5, not 0.2): ")
    of_others = "of other runs, or ranked otherwise"
    for other in (
        {**entry, "name": "tan"},
        {**entry, "name": "sim:mix", "ranked": {**ranked, "by": "mix"}},
        {**entry, "runs": [{"folder": "elsewhere"}]},
    ):
        assert said(systems=[other]).startswith(f"{lost} ({other['name']} {of_others}): ")
    assert said(baseline={"name": "ccn", "title": "CCN"}) == f"{lost} (lifts over ccn, not sim): {rest}\n"
    file.write_text("{}")
    assert refusal(words, capsys).startswith(f"{file}: cannot be read as the results of a simulation (KeyError(")
    # part of the new results, also as older versions wrote it
    wanted = entries({"sim": [tmp_path / "run"], "ccn": [tmp_path / "other"]}, [Ranking("click"), Ranking("mix", 0.3)])
    for same in (before, {**before, "systems": [{"name": "sim", "runs": entry["runs"]}]}):
        file.write_text(json.dumps(same))
        refuse_another(tmp_path, before, wanted, "sim")


def test_an_output_that_cannot_be_made_is_refused_before_the_work(
    log: Path, fake: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    said = refusal(["--runs", fake("sim", log), "--output", str(tmp_path / "file" / "folder")], capsys)
    assert said.startswith(f"--output {tmp_path / 'file' / 'folder'}: cannot be made")


def test_a_folder_without_finished_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cells" / "sim" / "seed101").mkdir(parents=True)
    assert "no finished run in cells/" in refusal(["--comparison", str(tmp_path)], capsys)
    (tmp_path / "cells" / "sim" / "without-scenario-1-seed101").mkdir()
    assert "each of its runs left some pages out (--leave_out)" in refusal(["--comparison", str(tmp_path)], capsys)


def test_every_column_is_a_metric_and_every_number_of_the_paper_has_a_column() -> None:
    for table, columns in COLUMNS.items():
        assert set(columns) <= set(METRICS)
        assert all(tuple(figures) == columns for figures in PAPER_LIFT[table].values())


def test_the_papers_table_4_is_read_as_shares_of_visits() -> None:
    for figures in PAPER_LIFT["Table 4"].values():
        product = (1 + figures["ctr"]) * (1 + figures["cvr"]) - 1
        assert product == pytest.approx(figures["visit_purchase_rate"], abs=0.002)
