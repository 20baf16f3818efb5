"""Metrics by segment: those of the segment's items alone."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import roc_auc_score

from lightning_ccn.cli import main
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.errors import DataError
from lightning_ccn.evaluation.segments import SegmentMetrics, item_impressions, pages_for_trigger
from tests.conftest import write_dataset
from tests.models.pages import ITEMS, planted


def test_each_segment_has_the_metrics_of_its_items() -> None:
    pages = planted(1, pages=60)
    cold = torch.arange(ITEMS + 1) < 20
    for_trigger = torch.tensor([3, 7, 30, 8, 59, 31])
    metrics, halves = SegmentMetrics(cold, "category", for_trigger), []
    for part in (slice(0, 25), slice(25, 60)):
        columns = ("user", "mood", "trigger", "items", "clicks", "short", "long")
        half = replace(pages, **{name: getattr(pages, name)[part] for name in columns})
        logit = torch.randn(half.items.size, generator=torch.Generator().manual_seed(part.start))
        metrics.update(logit, half.batch)
        halves.append(logit)
    logits, clicks = torch.cat(halves).numpy(), pages.clicks.ravel()
    found, undefined = metrics.finish()
    is_cold = pages.items.ravel() < 20
    alike = (pages.category[pages.items] == pages.category[pages.trigger][:, None]).ravel()
    page_id = np.concatenate([np.arange(25), np.arange(35)])  # each half is numbered from 0 on
    came = np.isin(page_id, for_trigger).repeat(6)
    segments = {"cold": is_cold, "warm": ~is_cold, "alike": alike, "unlike": ~alike}
    for name, part in {**segments, "for_trigger": came, "for_promotion": ~came}.items():
        assert found[f"{name}_items"] == part.sum()
        assert found[f"{name}_auc"].item() == pytest.approx(roc_auc_score(clicks[part], logits[part]), abs=1e-5)
        predicted = (1 / (1 + np.exp(-logits[part].astype(float)))).sum()
        assert found[f"{name}_calibration"].item() == pytest.approx(predicted / clicks[part].sum())
    assert undefined == []


def test_an_item_of_an_unknown_category_is_neither_alike_nor_unlike() -> None:
    pages = planted(1, pages=10)
    pages.items[:, 0] = 0  # the unknown item, which has no category
    pages.trigger[:3] = 0
    metrics = SegmentMetrics(torch.zeros(ITEMS + 1, dtype=torch.bool), "category")
    metrics.update(torch.zeros(60), pages.batch)
    found, _ = metrics.finish()
    known = (pages.category[pages.items] != 0) & (pages.category[pages.trigger] != 0)[:, None]
    assert found["alike_items"] + found["unlike_items"] == known.sum() < 60
    assert found["warm_items"] == 60


def test_without_categories_items_are_cold_or_warm_and_an_empty_segment_says_so() -> None:
    pages = planted(1, pages=10)
    metrics = SegmentMetrics(torch.zeros(ITEMS + 1, dtype=torch.bool), None)
    metrics.update(torch.zeros(60), pages.batch)
    found, undefined = metrics.finish()
    assert [name for name in found if name.endswith("items")] == ["cold_items", "warm_items"]
    assert "cold_auc undefined: no impression was seen" in undefined


def test_the_shares_of_the_ranks_add_up_to_the_impressions(dataset: Path) -> None:
    opened = Dataset.open(dataset)
    shown = np.concatenate(pq.read_table(dataset / "train")["items"].to_pylist())
    expected = np.bincount(shown, minlength=opened.schema.tables["item"].rows)
    assert item_impressions(opened).tolist() == expected.tolist()
    assert sum(item_impressions(opened, rank, 3) for rank in range(3)).tolist() == expected.tolist()  # type: ignore[union-attr]


def test_a_folder_without_training_pages_is_refused(dataset: Path) -> None:
    opened = Dataset.open(dataset)
    opened.splits["train"] = replace(opened.splits["train"], pages=0)
    with pytest.raises(
        DataError, match="train: no page views, so no item's impressions can be counted; leave out model"
    ):
        item_impressions(opened)


def test_the_intents_of_a_world_are_read_and_a_log_has_none(make_dataset: Callable[..., Path]) -> None:
    opened = Dataset.open(make_dataset())
    assert pages_for_trigger(opened) is None
    (path,) = opened.parts("test")
    table = pq.read_table(path)
    for_trigger = np.arange(len(table)) % 3 == 0
    pq.write_table(table.append_column("for_trigger", pa.array(for_trigger.astype(np.int8))), path, row_group_size=7)
    found = pages_for_trigger(opened)
    assert found is not None
    assert found.tolist() == np.asarray(table["page_id"])[for_trigger].tolist()


@pytest.mark.slow
def test_a_test_reports_them_if_it_is_asked_to(dataset: Path, tmp_path: Path) -> None:
    words = ["--data.folder", str(dataset), "--data.workers", "0", "--runs", str(tmp_path), "--run_id", "r"]
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.max_steps", "2", "--trainer.limit_val_batches", "0"]
    assert main(["fit", *words, *quiet, "--model.cold_below", "6"]) == 0

    def again(folder: Path) -> list[str]:
        place = ["--data.folder", str(folder), "--runs", str(tmp_path), "--run_id", folder.name]
        return ["test", *place, *quiet[:2], "--ckpt_path", str(tmp_path / "default" / "r"), "--model.cold_below", "6"]

    found = json.loads((tmp_path / "default" / "r" / "metrics.json").read_text())
    shown = np.bincount(np.concatenate(pq.read_table(dataset / "train")["items"].to_pylist()), minlength=61)
    tested = np.concatenate(pq.read_table(dataset / "test")["items"].to_pylist())
    shown[0] = 0  # the unknown item is cold, however often it is shown
    assert 0 < found["cold_items"] == (shown[tested] < 6).sum() < len(tested)
    assert found["cold_items"] + found["warm_items"] == len(tested)
    assert 0 < found["alike_items"] + found["unlike_items"] <= len(tested)  # without those of unknown categories
    assert 0 <= found["alike_auc"] <= 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message="(?!.*model.cold_below)")
        assert main(again(dataset)) == 0
    with pytest.warns(UserWarning, match="is not the data that the checkpoint was trained on: model.cold_below counts"):
        assert main(again(write_dataset(tmp_path / "other", seed=1, numbers=("price",)))) == 0
