"""What a run shows of itself: gradient norms, tables, pictures."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from lightning_ccn.callbacks.health_monitor import SAMPLED_ROWS, table_statistics
from lightning_ccn.cli import main
from lightning_ccn.evaluation.plots import calibration_plot, page_auc_plot
from lightning_ccn.evaluation.score_sums import BINS, PAGE_SIZES, ScoreSums, calibration_groups, degree_histogram
from lightning_ccn.models import Prediction
from lightning_ccn.sharding.sharded_rows import ShardedRows

# --------------------------------------------------------------------------------------------- tables


def parts(table: Tensor, rows: slice, columns: slice = slice(None)) -> ShardedRows:
    """A rank's part of a table."""
    values = table[rows, columns] if table.dim() == 2 else table[rows]
    offset = [rows.start or 0, columns.start or 0][: table.dim()]
    return ShardedRows(table.size(), [(torch.Size(offset), values)])


def over_ranks(ranks: Sequence[tuple[dict[str, ShardedRows], dict[str, ShardedRows] | None]]) -> dict[str, float]:
    """`table_statistics` of rank 0, where each rank holds (tables, accumulators)."""
    others: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        others.append(value.clone())
        return value

    for tables, accumulators in ranks[1:]:
        table_statistics(tables, accumulators, keep)
    return table_statistics(*ranks[0], lambda value: value + sum(others))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((slice(0, 600), slice(None)), (slice(600, 1000), slice(None))),
        ((slice(None), slice(0, 4)), (slice(None), slice(4, 8))),
        ((slice(None), slice(None)), (slice(0, 0), slice(None))),
    ],
    ids=["row_wise", "column_wise", "table_wise"],
)
def test_table_statistics_are_those_of_the_whole_table_however_it_is_cut(first: Any, second: Any) -> None:
    torch.manual_seed(0)
    table, touched = torch.randn(1000, 8), torch.rand(1000) < 0.3
    accumulator = touched[:, None] * torch.rand(1000, 8)
    ranks = [({"item": parts(table, *cut)}, {"item": parts(accumulator, *cut)}) for cut in (first, second)]
    found = over_ranks(ranks)
    norms = table[touched].norm(dim=1).numpy()
    assert found["tables/item/touched"] == pytest.approx(touched.float().mean().item())
    for percent in (50, 95, 99):
        assert found[f"tables/item/norm_p{percent}"] == pytest.approx(np.percentile(norms, percent), rel=1e-6)


def test_one_accumulator_a_row_tells_touched_rows_too() -> None:
    table = {"item": parts(torch.ones(10, 4), slice(None))}
    found = over_ranks([(table, {"item": parts(torch.tensor([1e-30, 2.0] + [0.0] * 8), slice(None))})])
    assert found == pytest.approx({"tables/item/touched": 0.2, **{f"tables/item/norm_p{p}": 2.0 for p in (50, 95, 99)}})


def test_a_table_that_has_not_learned_has_no_norms() -> None:
    found = over_ranks(
        [({"item": parts(torch.ones(10, 4), slice(None))}, {"item": parts(torch.zeros(10), slice(None))})]
    )
    assert found == {"tables/item/touched": 0.0}


def test_without_accumulators_all_rows_count_and_none_is_called_touched() -> None:
    found = over_ranks([({"item": parts(torch.ones(10, 4), slice(None))}, None)])
    assert found == pytest.approx({f"tables/item/norm_p{p}": 2.0 for p in (50, 95, 99)})


def test_rows_of_a_large_table_are_sampled_evenly() -> None:
    rows = 50 * SAMPLED_ROWS + 7
    table = torch.arange(rows, dtype=torch.float32)[:, None]
    found = over_ranks([({"item": parts(table, slice(None))}, None)])
    assert found["tables/item/norm_p50"] == pytest.approx(rows / 2, rel=1e-3)
    assert found["tables/item/norm_p99"] == pytest.approx(rows * 0.99, rel=1e-3)


# --------------------------------------------------------------------------------------------- pictures


def scored(seed: int, pages: int) -> tuple[Prediction, Any]:
    """Predictions that are right on average, and the part of a batch that is read."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 30, (pages,), generator=generator)
    logit = torch.randn(int(lengths.sum()), generator=generator) * 1.5 - 1
    clicks = (torch.rand(len(logit), generator=generator) < logit.sigmoid()).float()
    page = torch.repeat_interleave(lengths)
    return Prediction(logit, logit.sigmoid()), SimpleNamespace(clicks=clicks, page_lengths=lengths, page=page)


def same(value: Tensor) -> Tensor:
    return value


def sums_of(*batches: tuple[Prediction, Any]) -> ScoreSums:
    sums = ScoreSums(torch.device("cpu"))
    for prediction, batch in batches:
        sums.update(prediction, batch)
    return sums


def test_calibration_groups_are_runs_of_items_in_order_of_prediction() -> None:
    prediction, batch = scored(0, 500)
    calibration, *_ = sums_of((prediction, batch)).reduce(same)
    items, predicted, clicked = calibration_groups(calibration)
    assert items.sum() == len(prediction.logit)
    assert items.max() < 2 * len(prediction.logit) / 20
    assert (np.diff(predicted) > 0).all()
    assert (items * predicted).sum() == pytest.approx(prediction.logit.sigmoid().sum().item(), rel=1e-5)
    assert (items * clicked).sum() == batch.clicks.sum()
    assert np.abs(clicked - predicted).max() < 4 * np.sqrt(0.25 / items.min())  # the predictions are right


def test_page_auc_is_that_of_the_pages_of_each_size() -> None:
    prediction, batch = scored(1, 400)
    _, _, pages, auc = sums_of((prediction, batch)).reduce(same)
    for number, (low, high) in enumerate(PAGE_SIZES):
        chosen = [page for page, length in enumerate(batch.page_lengths.tolist()) if low <= length <= high]
        assert pages[number] == len(chosen)
        weighted = weights = 0.0
        for page in chosen:
            clicks, logit = batch.clicks[batch.page == page], prediction.logit[batch.page == page]
            if 0 < clicks.sum() < len(clicks):
                weighted += len(clicks) * roc_auc_score(clicks, logit)
                weights += len(clicks)
        assert auc[number] == pytest.approx(weighted / weights)


def test_degrees_are_counted_by_label_in_bins_that_hold_them() -> None:
    prediction, batch = scored(2, 200)
    assert prediction.degree is not None
    _, degrees, *_ = sums_of((prediction, batch)).reduce(same)
    for counts, label in zip(degrees, (0, 1), strict=True):
        histogram = degree_histogram(counts)
        assert histogram is not None
        found, edges = histogram
        expected, _ = np.histogram(prediction.degree[batch.clicks == label].numpy(), edges)
        assert found.tolist() == expected.tolist()
        assert found[0] > 0 and found[-1] > 0


def test_sums_of_two_halves_add_up_to_the_sums_of_all() -> None:
    one, two = scored(3, 50), scored(4, 60)
    whole, first, second = sums_of(one, two), sums_of(one), sums_of(two)
    assert torch.allclose(first.calibration + second.calibration, whole.calibration)
    assert torch.equal(first.degrees + second.degrees, whole.degrees)
    assert torch.equal(first.pages + second.pages, whole.pages)


def test_an_empty_batch_and_broken_scores_harm_nothing() -> None:
    empty = (
        Prediction(torch.zeros(0), None),
        SimpleNamespace(clicks=torch.zeros(0), page_lengths=torch.zeros(1).long(), page=torch.zeros(0).long()),
    )
    logit = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30])
    page = SimpleNamespace(clicks=torch.ones(4), page_lengths=torch.tensor([4]), page=torch.zeros(4).long())
    sums = sums_of(empty, (Prediction(logit, logit), page))
    calibration, degrees, pages, auc = sums.reduce(same)
    assert (calibration[0].sum(), degrees.sum(), pages.sum()) == (4, 4, 1)
    assert np.isnan(auc).all()
    assert np.flatnonzero(calibration[0]).tolist() == [0, BINS - 1]


def test_plots_are_small_images_even_of_nothing() -> None:
    nothing = ScoreSums(torch.device("cpu")).reduce(same)
    for calibration, _, pages, auc in (nothing, sums_of(scored(5, 100)).reduce(same)):
        for image in (calibration_plot(calibration), page_auc_plot(auc, pages)):
            assert (image.shape, image.dtype) == ((320, 400, 4), np.dtype("uint8"))
            assert len(np.unique(image)) > 10
    assert degree_histogram(nothing[1][0]) is None


# --------------------------------------------------------------------------------------------- a run


@pytest.mark.slow
def test_two_ranks_show_what_one_does_and_rank_0_alone_writes_it(dataset: Path, tmp_path: Path) -> None:
    def command(run_id: str, devices: int) -> list[str]:
        options = {
            "--data.folder": dataset,
            "--runs": tmp_path,
            "--experiment": "shop",
            "--run_id": run_id,
            "--wandb": "offline",
            "--test_after_fit": "false",
            "--trainer.accelerator": "cpu",
            "--trainer.devices": devices,
            "--trainer.log_every_n_steps": 1,
            "--trainer.strategy.plan": '{"item": "row_wise", "user": "table_wise:0"}',
            "--data.batch_pages": 16,
            "--data.workers": 0,
            "--model.system.dim": 8,
        }
        return ["fit", *(str(word) for pair in options.items() for word in pair)]

    assert main(command("one", 1)) == 0
    left_behind = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "CCN_RUN_ID")
    environment = {k: v for k, v in os.environ.items() if k not in left_behind}
    python = [sys.executable, "-W", "ignore", "-m", "lightning_ccn.cli"]
    done = subprocess.run([*python, *command("two", 2)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr

    runs = [tmp_path / "shop" / run_id for run_id in ("one", "two")]
    one, two = (list(csv.DictReader((folder / "metrics.csv").open())) for folder in runs)

    def column(lines: list[dict[str, str]], name: str) -> list[float]:
        return [float(line[name]) for line in lines if line.get(name)]

    assert column(one, "grad_norm")[0] == pytest.approx(column(two, "grad_norm")[0], rel=1e-3)
    assert json.loads((runs[1] / "plan.json").read_text())["tables"]["item"]["placement"] == "row_wise"
    touched = [name for name in one[0] if name.endswith("/touched")]
    assert len(touched) == 7
    for name in touched:
        assert column(one, name) == column(two, name)
        assert 0 < column(one, name)[-1] <= 1
    assert len(list(runs[1].glob("wandb/offline-run-*"))) == 1
