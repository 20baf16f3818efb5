from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.schema import Feature, Schema, Table
from lightning_ccn.data.writer import DatasetWriter
from lightning_ccn.errors import DataError
from lightning_ccn.evaluation.heuristics import heuristic_scores

HOUR = 3600


def write(folder: Path, clicks: list[int], ages: bool) -> Path:
    """Items 1 and 2 in training, the first ten times; 2, 3 and 1 on a test page."""
    schema = Schema(
        tables={"item": Table(5), "user": Table(2)},
        user=(Feature("user", "user"),),
        numbers=("item_age",) if ages else (),
    )
    empty = Ragged.from_lengths(np.zeros(0, np.int64), np.zeros(1, np.int64))
    pages = {
        "train": ([1] * 10 + [2], clicks, 0, [1.0] * 10 + [3.0]),
        "validation": ([3], [0], 2 * HOUR, [0.0]),
        "test": ([2, 3, 1, 4], [1, 0, 0, 1], 3 * HOUR, [2.0, 0.5, np.nan, 0.25]),
    }
    with DatasetWriter(folder, schema) as writer:
        for number, (split, (items, labels, time, age)) in enumerate(pages.items()):
            lengths = np.array([len(items)])
            rows: dict[str, np.ndarray | Ragged] = {
                "page_id": np.array([number]),
                "time": np.array([time]),
                "trigger": np.array([0]),
                "user": np.array([1]),
                "items": Ragged.from_lengths(np.array(items), lengths),
                "clicks": Ragged.from_lengths(np.array(labels, dtype=np.int8), lengths),
                **dict.fromkeys(("short_items", "short_times", "long_items", "long_times"), empty),
            }
            if ages:
                rows["item_age"] = Ragged.from_lengths(np.array(age, dtype=np.float32), lengths)
            writer.write(split, rows)
        writer.close({})
    return folder


def test_click_rates_are_those_of_training_and_the_average_for_an_item_not_seen_there(tmp_path: Path) -> None:
    write(tmp_path / "data", [1, 1, 1] + [0] * 8, ages=True)
    scores = {name: (score, clicks, lengths) for name, score, clicks, lengths in heuristic_scores(tmp_path / "data")}
    score, clicks, lengths = scores["training click rate"]
    prior = 20 * 3 / 11
    rates = np.array([prior / 21, 3 / 11, (3 + prior) / 30, 3 / 11])
    np.testing.assert_allclose(score, np.log(rates / (1 - rates)), rtol=1e-5)
    assert (clicks.tolist(), lengths.tolist()) == ([1, 0, 0, 1], [4])


def test_recency_puts_the_youngest_first_and_an_unknown_age_is_the_training_mean(tmp_path: Path) -> None:
    write(tmp_path / "data", [1] + [0] * 10, ages=True)
    scores = {name: score for name, score, _, _ in heuristic_scores(tmp_path / "data")}
    np.testing.assert_allclose(scores["recency"], [-2, -0.5, -13 / 11, -0.25], rtol=1e-6)


def test_without_ages_recency_counts_from_the_first_page_that_shows_the_item(tmp_path: Path) -> None:
    write(tmp_path / "data", [1] + [0] * 10, ages=False)
    scores = {name: score for name, score, _, _ in heuristic_scores(tmp_path / "data")}
    np.testing.assert_allclose(scores["recency"], [-np.log1p(3), -np.log1p(1), -np.log1p(3), 0], rtol=1e-6)


@pytest.mark.parametrize("label", [0, 1])
def test_a_training_split_with_equal_clicks_is_rejected(tmp_path: Path, label: int) -> None:
    write(tmp_path / "data", [label] * 11, ages=True)
    with pytest.raises(DataError, match=rf"{11 * label} of 11 items of the training split are clicked"):
        next(heuristic_scores(tmp_path / "data"))
