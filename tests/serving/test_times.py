"""Requests to a model that reads how long ago behaviours were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.errors import DataError
from lightning_ccn.serving import Request, RequestError, Scorer
from lightning_ccn.serving.graph_inputs import GraphInputs
from lightning_ccn.serving.package import Package
from lightning_ccn.serving.request import encode
from lightning_ccn.serving.score_files import score_files

NOW = 1_800_000_000
PAGE: dict[str, Any] = {
    "items": [1007, 1030],
    "short": [1001, 1002],
    "long": [1005, 1001, 1009],
    "time": NOW,
    "short_times": [NOW - 60, NOW - 60],
    "long_times": [NOW - 10_000_000, NOW - 3600, NOW + 5],
}


@pytest.fixture(scope="module")
def scorer(timed_package: Path) -> Scorer:
    return Scorer(timed_package)


def test_gaps_are_those_of_training_and_a_behaviour_after_the_page_is_at_its_time(timed_package: Path) -> None:
    opened = Package(timed_package)
    manifest = replace(opened.manifest, category=None, short_length=1)  # one group, of all behaviours
    opened.manifest = manifest
    inputs = GraphInputs(opened)(encode(Request.from_plain(PAGE), manifest, opened.ids))
    assert inputs["short_gap"].tolist() == [4]
    assert inputs["long_gap"].tolist() == [[67, 23, 0]]
    assert {inputs["short_gap"].dtype, inputs["long_gap"].dtype} == {np.dtype(np.int64)}


def test_without_behaviours_no_time_is_needed_and_the_gaps_have_the_shapes_of_the_behaviours(
    scorer: Scorer, timed_package: Path
) -> None:
    opened = Package(timed_package)
    inputs = GraphInputs(opened)(encode(Request([1007]), opened.manifest, opened.ids))
    assert inputs["short_gap"].shape == inputs["short"].shape
    assert inputs["long_gap"].shape == inputs["long"].shape
    assert scorer.score(items=[1007]).probability.shape == (1,)


def test_times_of_a_sequence_that_is_not_read_are_not_asked_for(timed_package: Path) -> None:
    opened = Package(timed_package)
    manifest = replace(opened.manifest, reads_long=False)
    rows = encode(Request([1007], long=[1005, 1001]), manifest, opened.ids)
    assert rows.times is not None
    assert len(rows.times.long) == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"time": None},
            "time: missing; the model reads how long ago behaviours were, so give the time of the request",
        ),
        ({"short_times": []}, "short_times: missing; the model reads how long ago behaviours were, so give a time for"),
        ({"long_times": []}, "long_times: missing;"),
        ({"long_times": [NOW] * 2}, "long_times: has 2 times for 3 behaviours;"),
        ({"short_times": [NOW, None]}, "short_times[1]: None is not a time; give whole seconds since 1970\n"),
        ({"short_times": None}, "short_times: null is not a list; give one, or leave the field out\n"),
        (
            {"short_times": [1000 * NOW] * 2},
            f"short_times[0]: {1000 * NOW} is not a time; give whole seconds since 1970 (milliseconds: divide "
            "by 1000)\n",
        ),
        ({"time": 1000.5 * NOW}, f"time: {1000.5 * NOW} is not a time; give whole seconds since 1970 (milliseconds: "),
        ({"time": float("nan")}, "time: nan is not a time; give whole seconds since 1970\n"),
        ({"time": 0}, "time: 0 is the year 1970; give when the page is shown, in seconds since 1970\n"),
        (
            {"time": NOW - 10_000_000 - 86_401},
            f"time: {NOW - 10_086_401} is more than a day before all behaviours, of which the first was at "
            f"{NOW - 10_000_000}; give when the page is shown, in seconds since 1970\n",
        ),
        ({"short_times": [True, NOW]}, "short_times[0]: True is not a time"),
        ({"short_times": [-1, NOW]}, "short_times[0]: -1 is not a time"),
        ({"time": NOW + 0.5}, f"time: {NOW + 0.5} is not a time; give whole seconds since 1970, such as {NOW}\n"),
        ({"time": NOW * 1.0}, f"time: {NOW}.0 is not a time; give whole seconds since 1970, such as {NOW}\n"),
        ({"time": "2027-01-15"}, "time: '2027-01-15' is not a time"),
        ({"short_times": [NOW, NOW - 1]}, f"short_times[1]: {NOW - 1} follows {NOW}; give behaviours oldest first"),
        ({"short_times": 5}, "short_times: 5 is not a list"),
    ],
)
def test_a_wrong_time_names_the_field(changes: dict[str, Any], said: str, scorer: Scorer) -> None:
    with pytest.raises(RequestError) as error:
        scorer.answer(Request.from_plain(PAGE | changes))
    assert f"{error.value}\n".startswith(said)


def test_a_page_may_be_a_day_before_all_behaviours_as_clocks_differ(scorer: Scorer) -> None:
    early = Request.from_plain(PAGE | {"time": NOW - 10_000_000 - 86_400})
    assert scorer.answer(early).probability.shape == (2,)


@pytest.mark.parametrize("name", ["time", "short_times", "long_times"])
def test_a_model_that_reads_no_times_refuses_them(name: str, package: Path) -> None:
    request = {name: value for name, value in PAGE.items() if "time" not in name}
    scorer = Scorer(package)
    expected = scorer.answer(Request.from_plain(request)).probability
    none: dict[str, Any] = {"time": None, "short_times": [], "long_times": []}
    np.testing.assert_array_equal(scorer.answer(Request.from_plain(request | none)).probability, expected)
    with pytest.raises(RequestError, match=f"^{name}: the model does not read when behaviours were; leave it out"):
        scorer.answer(Request.from_plain(request | {name: PAGE[name]}))


FILE = pa.table({name: pa.array([value, [] if isinstance(value, list) else None]) for name, value in PAGE.items()})
CSV = f"""items,short,time,short_times
1007|1030,1001|1002,{NOW},{NOW - 60}|{NOW - 60}
1007,1001,{NOW}.0,{NOW - 60}.0
1007,,,
"""


def test_files_of_requests_have_columns_of_times(timed_package: Path, tmp_path: Path) -> None:
    pq.write_table(FILE, tmp_path / "requests.parquet")
    (tmp_path / "requests.csv").write_text(CSV)
    for name, count in (("requests.parquet", 2), ("requests.csv", 4)):
        scored = score_files(timed_package, tmp_path / name, tmp_path / f"scores of {name}")
        assert (scored.candidates, scored.copied) == (count, frozenset())
    (tmp_path / "requests.csv").write_text(CSV.replace(f"\n1007,1001,{NOW}.0", "\n1007,1001,"))
    with pytest.raises(DataError, match=r"requests\.csv: row 1: time: missing; the model reads how long ago"):
        score_files(timed_package, tmp_path / "requests.csv", tmp_path / "scores")
    (tmp_path / "requests.csv").write_text(CSV.replace(f"{NOW - 60}.0", "yesterday"))
    with pytest.raises(DataError, match=r"row 1: column short_times: 'yesterday' is not an integer; write a list as"):
        score_files(timed_package, tmp_path / "requests.csv", tmp_path / "scores")


def test_a_model_that_reads_no_times_copies_their_columns(package: Path, tmp_path: Path) -> None:
    (tmp_path / "requests.csv").write_text(CSV)
    assert score_files(package, tmp_path / "requests.csv", tmp_path / "scores").copied == {"time", "short_times"}
