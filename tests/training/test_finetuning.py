"""Fine-tuning into a grown vocabulary: old rows keep their bits, new rows start as told, all else is listed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from torch import Tensor

from lightning_ccn.cli import main
from lightning_ccn.sharding import read_manifest
from lightning_ccn.sharding.checkpoint import load_tensors

QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false", "--data.workers", "0"]
SMALL = ["--data.batch_pages", "16", "--model.system.dim", "8", "--test_after_fit", "false"]
STILL = ["--model.lr", "1e-30", "--trainer.strategy.table_lr", "1e-30"]  # a fit that moves no weight by a bit


def fit(folder: Path, runs: Path, run_id: str, *options: str) -> int:
    place = ["--runs", str(runs), "--experiment", "test", "--run_id", run_id]
    return main(["fit", "--data.folder", str(folder), *place, *QUIET, *SMALL, *options])


def checkpoint(runs: Path, run_id: str) -> Path:
    return runs / "test" / run_id / "checkpoints" / "last.ckpt"


def tensor(path: Path, key: str) -> Tensor:
    value = torch.empty(read_manifest(path)["tensors"][key]["shape"])
    load_tensors(path, {key: value}, None)
    return value


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    """Runs of this file; `old` is fitted on the session's dataset (40 users, 60 items)."""
    folder = tmp_path_factory.mktemp("runs")
    assert fit(dataset, folder, "old") == 0
    return folder


@pytest.fixture
def grown(make_dataset: Callable[..., Path]) -> Path:
    """A later folder whose vocabularies extend the old ones: 50 users, 80 items, 20 tags."""
    return make_dataset("grown", users=50, items=80, tags=20, numbers=("price",))


def test_old_rows_are_kept_bit_for_bit_and_layers_too(runs: Path, grown: Path) -> None:
    assert fit(grown, runs, "kept", "--finetune", str(checkpoint(runs, "old")), *STILL) == 0
    old, new = checkpoint(runs, "old"), checkpoint(runs, "kept")
    for table, rows in (("item", 61), ("user", 41), ("category", 6), ("tag", 12)):
        key = f"tables.{table}.weight"
        assert torch.equal(tensor(new, key)[:rows], tensor(old, key)), table
    layers = [key for key in read_manifest(old)["tensors"] if key.startswith("module.")]
    assert len(layers) > 10
    for key in layers:
        assert torch.equal(tensor(new, key), tensor(old, key)), key


def test_new_rows_start_as_the_unknown_row(runs: Path, grown: Path) -> None:
    assert fit(grown, runs, "unknown", "--finetune", str(checkpoint(runs, "old")), *STILL) == 0
    found = tensor(checkpoint(runs, "unknown"), "tables.item.weight")
    assert torch.equal(found[61:], found[0].expand(20, -1))


def test_new_items_start_as_the_mean_of_their_categorys_items(runs: Path, grown: Path) -> None:
    options = ["--finetune", str(checkpoint(runs, "old")), "--new_rows", "category"]
    assert fit(grown, runs, "category", *options, *STILL) == 0
    found = tensor(checkpoint(runs, "category"), "tables.item.weight")
    category = torch.tensor(pq.read_table(grown / "items.parquet")["category"].to_pylist())
    for row in range(61, 81):
        alike = [old for old in range(1, 61) if category[old] == category[row]]
        torch.testing.assert_close(found[row], found[alike].mean(0) if alike else found[0])


def test_accumulators_start_afresh_unless_they_are_kept(runs: Path, grown: Path) -> None:
    old = tensor(checkpoint(runs, "old"), "tables.user.optimizer.momentum1")
    for keep in ("false", "true"):
        options = ["--finetune", str(checkpoint(runs, "old")), "--keep_accumulators", keep]
        assert fit(grown, runs, f"keep-{keep}", *options, *STILL) == 0
    key = "tables.user.optimizer.momentum1"
    fresh, kept = (tensor(checkpoint(runs, f"keep-{keep}"), key) for keep in ("false", "true"))
    torch.testing.assert_close(kept[:41], fresh[:41] + old)
    torch.testing.assert_close(kept[41:], fresh[41:])


def test_what_is_frozen_keeps_its_bits_while_the_rest_learns(runs: Path, grown: Path) -> None:
    options = ["--finetune", str(checkpoint(runs, "old")), "--model.freeze", "[item,head,target_short.query]"]
    assert fit(grown, runs, "frozen", *options) == 0
    old, new = checkpoint(runs, "old"), checkpoint(runs, "frozen")
    frozen = ("module.model.head.", "module.model.target_short.query.")
    for key in read_manifest(old)["tensors"]:
        if key.startswith("module.") and "metrics" not in key:
            assert torch.equal(tensor(new, key), tensor(old, key)) == key.startswith(frozen), key
    for table, rows, kept in (("item", 61, True), ("user", 41, False), ("category", 6, False)):
        key = f"tables.{table}.weight"
        assert torch.equal(tensor(new, key)[:rows], tensor(old, key)) == kept, table


def test_a_name_of_nothing_to_freeze_is_refused(runs: Path, grown: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--finetune", str(checkpoint(runs, "old")), "--model.freeze", "[users]"]
    assert fit(grown, runs, "misspelt", *options) == 2
    assert "model.freeze: no table or layer is named 'users'; tables: category, city, item," in capsys.readouterr().err


@pytest.mark.parametrize(
    ("frozen", "options", "fresh"),
    [
        ("order_head", ["--model.order_weight", "1"], "module.order_head.mlp."),
        ("head", ["--model.system.hidden", "[16,8]"], "module.model.head."),
        ("tag", [], "tables.tag.weight"),
    ],
)
def test_freezing_what_the_checkpoint_lacks_is_refused(
    runs: Path,
    make_dataset: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    frozen: str,
    options: list[str],
    fresh: str,
) -> None:
    parent = "old"
    if frozen == "tag":
        parent = "untagged"
        assert fit(make_dataset("untagged", tags=0, numbers=("price",)), runs, parent) == 0
    other = make_dataset("grown", users=50, items=80, tags=20, numbers=("price",), orders=True)
    freeze = ["--finetune", str(checkpoint(runs, parent)), "--model.freeze", f"[{frozen}]"]
    assert fit(other, runs, f"random-{frozen}", *freeze, *options) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(f"ccn: error: model.freeze names {frozen}, but {fresh}")


def test_a_fine_tune_is_a_new_run_with_steps_and_schedule_of_its_own(runs: Path, grown: Path) -> None:
    assert fit(grown, runs, "new", "--finetune", str(checkpoint(runs, "old"))) == 0
    assert read_manifest(checkpoint(runs, "new"))["global_step"] == 6


def started(runs: Path, run_id: str) -> float:
    """Factor on CCN's auxiliary losses in a run's first step, by the run's options."""
    factor: float = yaml.safe_load((runs / "test" / run_id / "config.yaml").read_text())["model"]["auxiliary_start"]
    return factor


def test_the_losses_that_start_the_degree_are_not_raised_again(runs: Path, grown: Path) -> None:
    assert fit(grown, runs, "first", "--finetune", str(checkpoint(runs, "old")), *STILL) == 0
    assert fit(grown, runs, "raised", "--finetune", str(checkpoint(runs, "old")), "--model.auxiliary_start", "7") == 0
    assert fit(grown, runs, "second", "--finetune", str(checkpoint(runs, "raised")), *STILL) == 0
    own = ["--config", "conf/model/ccn.yaml", "--model.system.dim", "8"]
    assert fit(grown, runs, "third", "--finetune", str(checkpoint(runs, "raised")), *own, *STILL) == 0
    assert [started(runs, run_id) for run_id in ("old", "first", "raised", "second", "third")] == [5, 1, 7, 1, 1]


def test_what_is_new_or_dropped_is_listed(
    runs: Path, grown: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    system = ["--model.system", "lightning_ccn.models.TAN", "--model.system.trigger_interaction", "false"]
    system += ["--model.system.hidden", "[128,32]"]
    assert fit(grown, runs, "listed", "--finetune", str(checkpoint(runs, "old")), *system) == 0
    report = capsys.readouterr().err + caplog.text
    assert re.search(r"7 of 7 tables and \d+ of \d+ parameters of layers start from the checkpoint", report)
    assert "grown: tables.item.weight, 61 rows loaded, 20 new" in report
    assert "NOT used, the module has no such entry: module.model.trigger_short.query.weight" in report
    assert "NOT loaded, starts fresh: module.model.head.rest.1.weight" in report


def test_a_model_that_takes_no_table_of_the_checkpoint_is_refused(
    runs: Path, grown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(grown, tmp_path, "wider", "--finetune", str(checkpoint(runs, "old")), "--model.system.dim", "16") == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("ccn: error: none of the 7 tables here starts from checkpoint ")
    assert "because names or shapes differ (tables." in said
    assert not (tmp_path / "test").exists() or not list((tmp_path / "test").glob("*"))


def test_a_model_that_takes_tables_but_no_layer_is_told(
    runs: Path, make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    system = ["--model.system", "lightning_ccn.models.WideDeep", "--model.system.hidden", "[8]"]
    other = make_dataset("grown", users=50, items=80, image=4, numbers=("price",))  # whose vectors have another layer
    with pytest.warns(UserWarning, match=r"none of the \d+ parameters of layers here starts from checkpoint .*old"):
        assert fit(other, tmp_path, "wide", "--finetune", str(checkpoint(runs, "old")), *system) == 0


def test_a_vocabulary_that_was_not_extended_is_refused(
    runs: Path, make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_dataset("other", users=50, items=80, numbers=("price",))
    path = other / "vocabulary" / "item.parquet"
    ids = pq.read_table(path)
    pq.write_table(ids.take(list(reversed(range(len(ids))))), path)
    stats = other / "stats.json"
    stats.unlink()
    assert main(["data", "check", str(other), "--write_stats", "true"]) == 0
    assert fit(other, tmp_path, "r", "--finetune", str(checkpoint(runs, "old"))) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{path}: does not extend the vocabulary of" in error
    assert "--extends" in error


def test_a_table_that_shrank_is_refused(
    runs: Path, make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = make_dataset("small", users=20, numbers=("price",))
    assert fit(small, tmp_path, "r", "--finetune", str(checkpoint(runs, "old"))) == 2
    assert "user" in capsys.readouterr().err.strip().splitlines()[-1]


def test_resume_and_fine_tune_exclude_each_other(
    runs: Path, grown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["--finetune", str(checkpoint(runs, "old")), "--ckpt_path", str(checkpoint(runs, "old"))]
    assert fit(grown, tmp_path, "r", *both) == 2
    assert "leave one out" in capsys.readouterr().err
