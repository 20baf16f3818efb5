"""Commands that are given a checkpoint: its run's options come with it, however its path is written."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from lightning_ccn.cli import main
from lightning_ccn.sharding import read_manifest
from lightning_ccn.training.given_checkpoint import find_checkpoint, run_of, with_options_of_run
from lightning_ccn.training.run_folder import LOCK
from tests.data.stats import accept_changes

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false", "--data.workers", "0"]
SMALL = ["--data.batch_pages", "16", "--trainer.log_every_n_steps", "2", "--trainer.max_epochs", "1"]


def fit(folder: Path, runs: Path, name: str, *options: str) -> int:
    place = ["--data.folder", str(folder), "--runs", str(runs), "--run_id", name, "--wandb", "off"]
    return main(["fit", *place, *QUIET, *SMALL, "--test_after_fit", "false", *options])


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of TAN, in a folder with a space."""
    runs = tmp_path_factory.mktemp("all runs")
    assert fit(dataset, runs, "tan", "--model.system", "TAN", "--model.system.dim", "8") == 0
    return runs / "default" / "tan"


def scores(folder: Path) -> np.ndarray:
    table = pq.read_table(folder).sort_by([("page_id", "ascending"), ("item_id", "ascending")])
    return np.asarray(table["probability"])


@pytest.mark.parametrize("written", ["{run}/checkpoints/last.ckpt", "{run}/checkpoints/last.ckpt/", "{run}", "{run}/"])
def test_a_path_means_the_same_checkpoint_in_every_spelling(run: Path, written: str) -> None:
    assert find_checkpoint(written.format(run=run)) == run / "checkpoints" / "last.ckpt"
    assert run_of(written.format(run=run)) == run


def test_a_path_that_is_relative_to_its_run_names_it_too(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run / "checkpoints")
    found = run_of("last.ckpt")
    assert found is not None
    assert found.resolve() == run.resolve()
    monkeypatch.chdir(run.parent)
    assert run_of("tan/checkpoints/last.ckpt/") == Path("tan")
    assert run_of("elsewhere/last.ckpt") is None


def test_options_of_the_run_come_before_the_given_ones(run: Path) -> None:
    words = with_options_of_run(["predict", f"--ckpt_path={run}/checkpoints/last.ckpt/", "--data.workers", "3"])
    assert words[:3] == ["predict", "--config", str(run / "config.yaml")]
    assert words[-2:] == ["--data.workers", "3"]
    continued = ["fit", "--ckpt_path", str(run)]
    assert with_options_of_run(continued) == continued  # is the same command again
    assert with_options_of_run([]) == []


def test_predict_finds_the_model_and_leaves_nothing_but_scores(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    assert main(["predict", "--ckpt_path", f"{run}/checkpoints/last.ckpt/", "--output", "scores"]) == 0
    assert sorted(os.listdir(tmp_path)) == ["scores"]
    assert os.listdir(tmp_path / "scores") == ["part-00000-00000.parquet"]
    assert {path: path.stat().st_mtime_ns for path in run.iterdir()} == before
    assert main(["predict", "--ckpt_path", str(run)]) == 0  # into the run's folder
    assert np.array_equal(scores(run / "predictions"), scores(tmp_path / "scores"))


def test_a_checkpoint_outside_a_run_needs_a_folder_for_the_scores(
    run: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run / "checkpoints" / "last.ckpt", tmp_path / "alone")
    options = ["--data.folder", str(dataset), "--model.system", "TAN", "--model.system.dim", "8", *QUIET]
    assert main(["predict", "--ckpt_path", "alone", *options]) == 2
    assert "alone is not in the folder of a run: name a folder for the scores: --output" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["alone"]


@pytest.mark.parametrize("command", ["predict", "test", "validate"])
def test_a_score_needs_a_checkpoint(
    command: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--data.folder", str(dataset), "--runs", str(tmp_path), *QUIET]) == 2
    assert f"--ckpt_path is missing: `ccn {command}` scores with a checkpoint" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_path_where_nothing_is_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--ckpt_path", str(tmp_path / "typo")]) == 2
    assert f"cannot load checkpoint {tmp_path / 'typo'}: it does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["best", "last"])
def test_words_name_checkpoints_of_a_run(run: Path, word: str) -> None:
    place = ["--runs", str(run.parents[1]), "--run_id", run.name]
    assert main(["validate", *place, "--ckpt_path", word]) == 0


def test_config_yaml_starts_the_run_anew(run: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert not {"run_id", "ckpt_path", "finetune"} & config.keys()  # null would undo the word of another file
    assert main(["fit", "--config", str(run / "config.yaml"), "--runs", str(tmp_path), "--run_id", "again"]) == 0
    one, two = (json.loads((at / "metrics.json").read_text()) for at in (run, tmp_path / "default" / "again"))
    assert one["val_auc"] == two["val_auc"]


@pytest.mark.parametrize(
    "words",
    [
        ["--ckpt_path", "{run}", "--config", "{run}/config.yaml"],
        ["--config", "{run}/config.yaml", "--ckpt_path={run}"],
        ["--config", "{other}", "--config={run}/config.yaml"],
        ["-c", "{run}/config.yaml", "-c", "{other}"],
    ],
    ids=["option first", "file first", "in a file", "in a later file"],
)
def test_a_checkpoint_is_scored_whether_an_option_or_a_file_names_it(
    words: list[str], run: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({"ckpt_path": str(run), "runs": str(tmp_path), "run_id": "file"}))
    named = [word.format(run=run, other=other) for word in words]
    assert main(["validate", *named, "--runs", str(tmp_path), "--run_id", "v", "--wandb", "off"]) == 0
    assert (tmp_path / "default" / "v" / "validate.yaml").exists()


def test_a_file_that_names_the_weights_to_start_from_brings_their_system(run: Path, tmp_path: Path) -> None:
    files = {"weights": {"finetune": str(run)}, "again": yaml.safe_load((run / "config.yaml").read_text())}
    for name, content in files.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    words = [word for name in files for word in ("--config", str(tmp_path / f"{name}.yaml"))]
    assert main(["fit", *words[:2], "--runs", str(tmp_path), "--run_id", "one", "--wandb", "off"]) == 0
    assert main(["fit", "--runs", str(tmp_path), "--run_id", "two", "--model.lr", "0.5", *words]) == 0
    for name, lr in (("one", 0.02), ("two", 0.5)):
        tuned = yaml.safe_load((tmp_path / "default" / name / "config.yaml").read_text())
        assert tuned["model"]["system"]["class_path"].endswith("TAN")
        assert (tuned["finetune"], tuned["model"]["lr"]) == (str(run / "checkpoints" / "last.ckpt"), lr)


def test_a_fine_tuning_goes_on_without_its_parent(
    run: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = tmp_path / "parent"
    shutil.copytree(run, parent)
    words = ["fit", "--finetune", str(parent), "--runs", str(tmp_path), "--run_id", "tuned", "--wandb", "off"]
    assert main([*words, "--trainer.max_steps", "2"]) == 0
    shutil.rmtree(parent)
    assert main([*words, "--ckpt_path", "last", "--trainer.max_steps", "-1"]) == 0
    assert read_manifest(tmp_path / "default" / "tuned" / "checkpoints" / "last.ckpt")["global_step"] == 6
    words[words.index("tuned")] = "new"
    assert main([*words, "--ckpt_path", "last_if_any"]) == 2
    assert f"cannot load checkpoint {parent}: it does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--ckpt_path", "{run}/config.yaml"], "config.yaml is not a checkpoint: name the folder of its run, {run}"),
        (["--ckpt_path", "{run}/.."], "it is not a checkpoint, but holds some; give one of them: {run}/../tan/check"),
        (["--ckpt_path", "last"], "--ckpt_path last: of which run? Add --run_id"),
        (["--ckpt_path", "best"], "--ckpt_path best: of which run? Add --run_id"),
        (["--ckpt_path", "last", "--run_id", "typo"], "default/typo is not the folder of a run; correct --runs"),
    ],
)
def test_what_is_no_checkpoint_is_told_before_an_option_is_missed(
    words: list[str], told: str, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CCN_RUN_ID", raising=False)
    assert main(["test", *(word.format(run=run) for word in words)]) == 2
    assert told.format(run=run) in capsys.readouterr().err


def test_data_that_a_run_names_from_another_folder_are_told_so(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    options = yaml.safe_load((run / "config.yaml").read_text())
    options["data"]["folder"] = "data/here"
    (moved / "config.yaml").write_text(yaml.safe_dump(options))
    assert main(["test", "--ckpt_path", str(moved)]) == 2
    said = capsys.readouterr().err
    assert f"data/here: no such folder; this data.folder comes from {moved}/config.yaml: name the data with" in said
    assert "--data.folder, or run the command in the folder where the run was started" in said


def without_truth(options: list[str]) -> list[str]:
    """The same data without their true probabilities."""
    path = Path(options[-1]) / "test" / "part-00000.parquet"
    pages = pq.read_table(path)
    pq.write_table(pages.drop_columns(["click_probability", "attainable_probability"]), path)
    accept_changes(Path(options[-1]))
    return options


@pytest.mark.parametrize("command", ["fit", "test", "validate"])
def test_nothing_of_another_run_is_written_into_a_runs_folder(
    command: str, run: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "default" / "theirs"
    shutil.copytree(run, theirs)

    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file() and path.name != LOCK}

    before = content()
    tan = ["--model.system", "TAN", "--model.system.dim", "8", *QUIET, *SMALL]
    words = [command, "--data.folder", str(dataset), *tan, "--runs", str(tmp_path), "--run_id", "theirs"]
    assert main([*words, "--ckpt_path", str(run)]) == 2
    last = run / "checkpoints" / "last.ckpt"
    told = f"{theirs} has a run already, and --ckpt_path {last} is of another: give the {command} a folder of its own"
    assert told in capsys.readouterr().err
    assert content() == before


def test_a_runs_metrics_are_never_of_two_datasets(
    run: Path,
    make_dataset: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = tmp_path / "default" / "own"
    shutil.copytree(run, own)
    june = ["--data.folder", str(make_dataset("june", seed=1, numbers=("price",)))]
    place = ["--runs", str(tmp_path), "--wandb", "off"]
    assert main(["test", *place, "--run_id", "own", "--ckpt_path", "last"]) == 0
    before = json.loads((own / "metrics.json").read_text())
    assert set(before) > {"auc", "val_auc", "global_step"}
    assert main(["test", *place, "--run_id", "own", "--ckpt_path", "last", *june]) == 2
    said = capsys.readouterr().err
    assert "are other data: give the test a folder of its own with --run_id, and name the checkpoint by" in said
    assert json.loads((own / "metrics.json").read_text()) == before
    caplog.clear()
    assert main(["test", *place, "--run_id", "june", "--ckpt_path", str(own), *june]) == 0
    content = "metrics.json, test.yaml, plan.json, diagnostics.json"
    assert f"Everything of this test is in {tmp_path / 'default' / 'june'} ({content})." in caplog.text
    (tmp_path / "default" / "june" / "metrics.json").write_text('{"auc": 0.9, "oracle_auc": 0.9, "val_auc": 0.9}')
    assert main(["test", *place, "--run_id", "june", "--ckpt_path", str(own), *without_truth(june)]) == 0
    found = json.loads((tmp_path / "default" / "june" / "metrics.json").read_text())
    assert found["auc"] != 0.9 and "oracle_auc" not in found  # which was of the test before


def test_a_second_fit_does_not_write_into_the_first_ones_folder(
    run: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "config.yaml").read_text()
    assert fit(dataset, run.parents[1], run.name) == 2
    assert f"{run} has a run already: name another with --run_id, or continue" in capsys.readouterr().err
    assert (run / "config.yaml").read_text() == before


def test_a_run_that_saved_nothing_is_not_told_to_go_on(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "default" / "r"
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    assert fit(dataset, tmp_path, "r") == 2
    said = capsys.readouterr().err
    assert f"{run} has a run already: name another with --run_id; this one has saved no checkpoint" in said
    assert fit(dataset, tmp_path, "r", "--ckpt_path", "last") == 2
    assert "or leave it out to start a run with another --run_id" in capsys.readouterr().err


def test_a_run_that_does_not_exist_is_not_continued(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(dataset, tmp_path, "typo", "--ckpt_path", "last") == 2
    assert "typo/checkpoints has no complete checkpoint; name the run with" in capsys.readouterr().err
    assert not list(tmp_path.glob("default/*"))
    assert fit(dataset, tmp_path, "job", "--ckpt_path", "last_if_any", "--trainer.max_steps", "1") == 0


def test_a_run_with_other_options_is_not_continued(
    run: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tan = ["--model.system", "TAN", "--model.system.dim", "8", "--ckpt_path", "last"]
    assert fit(dataset, run.parents[1], run.name, *tan, "--data.batch_pages", "32", "--model.lr", "0.5") == 2
    said = capsys.readouterr().err
    assert "data.batch_pages was 16, and is 32; model.lr was 0.02, and is 0.5. Continue with the same options" in said


def test_a_run_that_is_made_longer_tells_how_its_schedule_changes(dataset: Path, tmp_path: Path) -> None:
    assert fit(dataset, tmp_path, "r", "--trainer.max_steps", "2") == 0
    longer = ["--ckpt_path", "last", "--trainer.max_steps"]
    told = "the learning rate was that of a run of 2 steps, and is that of a run of 4 steps from step 2 on"
    with pytest.warns(UserWarning, match=told):
        assert fit(dataset, tmp_path, "r", *longer, "4") == 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert fit(dataset, tmp_path, "r", *longer, "4") == 0
    assert not [words for words in map(str, caught) if "learning rate" in words]


def test_a_fine_tune_takes_the_model_of_the_checkpoint(
    run: Path, make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    june = make_dataset("june", seed=1, numbers=("price",))
    options = ["--data.folder", str(june), "--runs", str(tmp_path), "--run_id", "tuned"]
    assert main(["fit", "--finetune", f"{run}/", *options]) == 0
    tuned = yaml.safe_load((tmp_path / "default" / "tuned" / "config.yaml").read_text())
    assert tuned["model"]["system"]["class_path"].endswith("TAN")
    assert tuned["finetune"] == str(run / "checkpoints" / "last.ckpt")


def test_another_folder_is_scored_with_the_moments_of_the_training(
    run: Path, make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_dataset("same", numbers=("price",))  # the training's data, counted wrongly
    stats = json.loads((folder / "stats.json").read_text())
    stats["numbers"]["price"] = [30.0, 20.0]
    (folder / "stats.json").write_text(json.dumps(stats))
    for name, data in (("one", []), ("two", ["--data.folder", str(folder)])):
        assert main(["predict", "--ckpt_path", str(run), "--output", str(tmp_path / name), *data]) == 0
    assert np.array_equal(scores(tmp_path / "one"), scores(tmp_path / "two"))
