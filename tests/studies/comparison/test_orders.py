"""`ccn compare --model.order_weight 1`: the AUC of orders is compared like that of clicks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lightning_ccn.cli import main
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.models import SIM
from lightning_ccn.nn.order_head import OrderHead
from tests.conftest import write_dataset

SYSTEMS = ("--systems", "conf/model/sim.yaml,conf/model/tan.yaml", "--sensitivity_seeds", "0", "--trials", "1")
SMALL = ("--data.batch_pages", "32", "--data.workers", "0")


@pytest.mark.slow
def test_orders_are_compared_with_the_error_over_users(tmp_path: Path) -> None:
    folder, output = write_dataset(tmp_path / "log", orders=True), tmp_path / "out"
    place = ("--data.folder", str(folder), "--output", str(output), "--jobs", "2", "--seeds", "2")
    assert main(["compare", *place, *SYSTEMS, *SMALL, "--model.order_weight", "1"]) == 0
    report = json.loads((output / "compare.json").read_text())
    sim, tan = report["systems"]
    assert tan["summary"]["order_auc"]["runs"] == 2
    versus = tan["versus"]["order_auc"]
    assert versus["page_se"] > 0 and versus["low"] < versus["difference"] < versus["high"]
    page = (output / "compare.html").read_text()
    assert "<h2>Orders</h2>" in page and "AUC of orders" in page
    effects = np.load(output / "cells/sim/seed101/page_effects.npz")
    assert effects["order_auc"].shape == effects["auc"].shape == (Dataset.open(folder).splits["test"].pages,)
    assert abs(effects["order_auc"].sum()) < 1e-5 and np.abs(effects["order_auc"] - effects["auc"]).max() > 0.01
    dataset = Dataset.open(folder)
    head = sum(p.numel() for p in OrderHead(SIM(dataset)).parameters())
    without = ("--data.folder", str(folder), "--output", str(tmp_path / "bare"), "--jobs", "2", "--seeds", "1")
    assert main(["compare", *without, *SYSTEMS, *SMALL]) == 0
    bare = json.loads((tmp_path / "bare/compare.json").read_text())
    assert sim["parameters"]["dense"] == bare["systems"][0]["parameters"]["dense"] + head
    assert "<h2>Orders</h2>" not in (tmp_path / "bare/compare.html").read_text()
