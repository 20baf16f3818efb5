"""`intent_auc` of the systems that estimate why the user entered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import roc_auc_score

from lightning_ccn.cli import main
from lightning_ccn.data.batch import PageBatch
from lightning_ccn.nn.intent import IntentNet

OPTIONS = ["--trainer.enable_progress_bar", "false", "--data.workers", "0", "--data.batch_pages", "16"]


def run(command: str, system: str, folder: Path, runs: Path, run_id: str, *options: str) -> dict[str, Any]:
    place = ["--data.folder", str(folder), "--runs", str(runs), "--experiment", "test", "--run_id", run_id]
    model = ["--model.system", f"lightning_ccn.models.{system}"]
    assert main([command, *place, *OPTIONS, *model, *options]) == 0
    found: dict[str, Any] = json.loads((runs / "test" / run_id / "metrics.json").read_text())
    return found


def of_page_id(page_id: Any) -> Any:
    """Any intent will do that this file can compute too."""
    return page_id * 7 % 11


@pytest.mark.parametrize("system", ["DIHN", "DIAN"])
def test_it_is_that_of_each_page_against_clicks_of_the_triggers_category(
    system: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = run("fit", system, dataset, tmp_path, "fit")
    assert 0 < fitted["val_intent_auc"] < 1

    def known(self: IntentNet, e: Any, batch: PageBatch) -> torch.Tensor:
        return of_page_id(batch.page_id).float() - 5

    monkeypatch.setattr(IntentNet, "forward", known)
    checkpoint = str(tmp_path / "test" / "fit" / "checkpoints" / "last.ckpt")
    found = run("test", system, dataset, tmp_path, "test", "--ckpt_path", checkpoint)

    category = pq.read_table(dataset / "items.parquet")["category"].to_pylist()
    pages = [page for path in dataset.glob("test/*.parquet") for page in pq.read_table(path).to_pylist()]
    labels = []
    for page in pages:
        of_trigger = [category[item] == category[page["trigger"]] for item in page["items"]]
        labels.append(any(alike and clicks for alike, clicks in zip(of_trigger, page["clicks"], strict=True)))
    assert found["intent_auc"] == pytest.approx(
        roc_auc_score(labels, [of_page_id(page["page_id"]) for page in pages]), abs=1e-9
    )


def test_a_system_without_an_intent_has_none(dataset: Path, tmp_path: Path) -> None:
    assert not [name for name in run("fit", "SIM", dataset, tmp_path, "r") if "intent" in name]
