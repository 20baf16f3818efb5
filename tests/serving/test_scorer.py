"""`Scorer`: raw ids in, probabilities out, without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_ccn.errors import CCNError
from lightning_ccn.serving import PackageError, Request, RequestError, Scorer
from lightning_ccn.serving.graph_inputs import GraphInputs
from lightning_ccn.serving.request import Rows

PAGE = {"user": {"user": 1003, "city": 1001, "interests": [1001, 1002]}, "trigger": 1004, "short": [1001, 1002]}
HEAVY = ("torch", "lightning", "torchrec", "fbgemm_gpu", "pyarrow", "yaml", "torchmetrics", "jsonargparse")


@pytest.fixture(scope="module")
def scorer(package: Path) -> Scorer:
    return Scorer(package)


def nested(depth: int) -> list[Any]:
    """A list in a list, and so on."""
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def test_it_runs_where_only_numpy_and_onnx_runtime_are_installed(package: Path, scorer: Scorer) -> None:
    code = f"""
import sys
for name in {HEAVY}: sys.modules[name] = None  # an import of it fails
from lightning_ccn.serving import Scorer
print(Scorer({str(package)!r}).score(items=[1001, 1002], trigger=1004).probability.tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = scorer.score(items=[1001, 1002], trigger=1004).probability.tolist()
    assert json.loads(done.stdout) == pytest.approx(here)


def test_what_a_request_leaves_out_is_unknown_and_said(scorer: Scorer) -> None:
    scores = scorer.score(items=[1001, 1002])
    assert scores.defaulted == ("user.user", "user.city", "user.interests", "numbers.price", "page_numbers.age")
    assert (scores.unknown, scores.unknown_items.tolist()) == ({}, [])
    user: dict[str, object] = {"user": None, "city": None, "interests": []}
    numbers = {"price": [None, float("nan")]}
    same = scorer.score([1001, 1002], user, None, numbers=numbers, page_numbers={"age": None})
    np.testing.assert_array_equal(scores.probability, same.probability)
    assert same.defaulted == ("user.user", "user.city", "numbers.price", "page_numbers.age")
    in_part = scorer.score([1001, 1002], user, numbers={"price": [4.0, None]}, page_numbers={"age": 100})
    assert in_part.defaulted == ("user.user", "user.city", "numbers.price")


def test_unknown_ids_are_counted_by_field_and_score_as_the_unknown_row(scorer: Scorer) -> None:
    scores = scorer.score(items=[999, 1001, None], user={"user": 5, "interests": [1, 1001]}, short=[7, 8], long=[9])
    assert scores.unknown == {"user.user": 1, "user.interests": 1, "items": 2, "short": 2, "long": 1}
    assert scores.unknown_items.tolist() == [0, 2]
    assert scores.probability[0] == scores.probability[2]
    assert scores.probability[0] != scores.probability[1]


def test_numbers_and_the_user_and_the_trigger_and_the_sequences_count(scorer: Scorer) -> None:
    def first(**changes: object) -> float:
        page = {**PAGE, "long": [1005, 1001, 1009], "numbers": {"price": [3.0]}, "page_numbers": {"age": 100.0}}
        return float(scorer.score(items=[1007], **{**page, **changes}).probability[0])  # type: ignore[arg-type]

    before = first()
    others: list[dict[str, object]] = [
        {"user": {**PAGE["user"], "user": 1010}},  # type: ignore[dict-item]
        {"trigger": 1020},
        {"short": [1030]},
        {"numbers": {"price": [9.0]}},
        {"page_numbers": {"age": 90.0}},
    ]
    assert all(first(**change) != before for change in others)


def test_only_the_latest_short_behaviours_are_read(scorer: Scorer) -> None:
    latest = [1001 + at % 50 for at in range(scorer.manifest.short_length)]
    long_ago = scorer.score(items=[1007], short=[1055] * 30 + latest)
    np.testing.assert_array_equal(long_ago.probability, scorer.score(items=[1007], short=latest).probability)


def test_no_candidates_get_no_scores(scorer: Scorer) -> None:
    scores = scorer.score(items=[], numbers={"price": []})
    assert scores.degree is not None
    assert (scores.probability.shape, scores.degree.shape, scores.unknown_items.shape) == ((0,), (0,), (0,))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"threads": 0}, "threads is 0: it must be an integer of 1 or more"),
        ({"threads": "all"}, "threads is 'all': it must be"),
        ({"engine": "cuda"}, "engine is 'cuda': it must be one of onnx, compiled"),
        ({"folder": None}, "None is not a path; name a folder that `ccn export` has written"),
    ],
)
def test_a_scorer_that_cannot_be_made_says_why(arguments: dict[str, Any], said: str, package: Path) -> None:
    with pytest.raises(CCNError) as error:
        Scorer(**{"folder": package, **arguments})
    assert said in str(error.value)


def test_a_multitude_of_candidates_is_scored_some_at_a_time(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    page: dict[str, Any] = {**PAGE, "long": [1005, 1001, 1009], "numbers": {"price": list(range(7))}}
    items = [1007, 1001, 999, 1030, 1007, 1002, 1003]
    at_once, seen, call = scorer.score(items, **page), [], GraphInputs.__call__

    def counted(self: GraphInputs, rows: Rows) -> dict[str, np.ndarray]:
        seen.append(len(rows.items))
        return call(self, rows)

    monkeypatch.setattr("lightning_ccn.serving.scorer.AT_ONCE", 3)
    monkeypatch.setattr(GraphInputs, "__call__", counted)
    in_parts = scorer.score(items, **page)
    assert seen == [3, 3, 1]
    assert in_parts.degree is not None and at_once.degree is not None
    np.testing.assert_allclose(in_parts.probability, at_once.probability, atol=1e-6)
    np.testing.assert_allclose(in_parts.degree, at_once.degree, atol=1e-6)
    assert in_parts.unknown_items.tolist() == [2]


def test_many_requests_get_the_scores_of_each(scorer: Scorer) -> None:
    requests = [Request([1001, 1002, 1003], trigger=trigger) for trigger in (1001, 1005, None)]
    for request, scores in zip(requests, scorer.score_many(requests), strict=True):
        np.testing.assert_array_equal(scores.probability, scorer.answer(request).probability)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"items": ["x"]}, "items[0]: 'x' is not an integer"),
        ({"items": [True]}, "items[0]: True is not an integer"),
        ({"items": [2**70]}, f"items[0]: {2**70} does not fit 64 bits"),
        ({"items": [1001], "user": {"usr": 1}}, "user.'usr': no such feature; the model reads user, city, interests"),
        ({"items": [1001], "user": {"user": [1]}}, "user.user: [1] is not one id"),
        ({"items": [1001], "user": {"user": "ann"}}, "user.user: 'ann' is not an integer"),
        ({"items": [1001], "trigger": 1.5}, "trigger: 1.5 is not an integer"),
        ({"items": [1001], "user": {"interests": 5}}, "user.interests: 5 is not a list"),
        ({"items": [1001], "numbers": {"price": [1.0, 2.0]}}, "numbers.price: has 2 numbers for 1 items"),
        ({"items": [1001], "numbers": {"price": ["dear"]}}, "numbers.price[0]: 'dear' is not a number"),
        ({"items": [1001], "numbers": {"price": [1e40]}}, "numbers.price[0]: 1e+40 is too far from the mean"),
        ({"items": [1001], "numbers": {"price": [float("inf")]}}, "numbers.price[0]: inf is too far from the mean"),
        ({"items": [1001], "page_numbers": {"size": 1}}, "page_numbers.'size': no such feature; the model reads age"),
        ({"items": 5}, "items: 5 is not a list"),
        ({"items": [{"a": "x" * 1000}]}, "xxx... is not an integer"),
        ({"items": [nested(5000)]}, "[[[[...]]]] is not an integer"),
        ({"items": [1001], "numbers": {"price": None}}, "numbers.price: null is not a list of numbers; give one, or"),
        ({"items": [1001], "page_numbers": {"age": "x"}}, "page_numbers.age: 'x' is not a number"),
        ({"items": [1001], "page_numbers": {"age": 1e300}}, "page_numbers.age: 1e+300 is too far from the mean"),
        ({}, "items: missing"),
        ({"items": [], "shorts": []}, "'shorts': no such field"),
        ([], "a request is an object"),
    ],
)
def test_a_wrong_request_names_the_field(request_: object, said: str, scorer: Scorer) -> None:
    with pytest.raises(RequestError) as error:
        scorer.answer(Request.from_plain(request_))
    assert said in str(error.value)


def test_an_array_of_another_shape_is_refused(scorer: Scorer) -> None:
    with pytest.raises(RequestError, match="items: an array of 2 dimensions is not a list of ids"):
        scorer.score(items=np.array([[1001, 1002]]))
    with pytest.raises(RequestError, match="short: an array of 2 dimensions"):
        scorer.score(items=[1001], short=np.array([[1001]]))
    with pytest.raises(RequestError, match=r"numbers\.price: an array of 2 dimensions is not a list of numbers"):
        scorer.score(items=[1001], numbers={"price": np.array([[1.0]])})  # type: ignore[dict-item]


def test_what_is_no_request_and_an_id_beyond_64_bits_are_refused(scorer: Scorer) -> None:
    with pytest.raises(RequestError, match=r"is not a Request; Request\.from_plain makes one"):
        scorer.score_many([{"items": [1001]}])  # type: ignore[list-item]
    with pytest.raises(RequestError, match=r"items\[1\]: 9223372036854775808 does not fit 64 bits"):
        scorer.score(items=np.array([1001, 2**63], np.uint64))


def test_threads_get_the_scores_of_their_own_requests_while_packages_change(
    package: Path, scorer: Scorer, tmp_path: Path
) -> None:
    other = shutil.copytree(package, tmp_path / "other")
    changing = Scorer(package)
    expected = {trigger: scorer.score(items=[1001, 1002], trigger=trigger).probability for trigger in range(1001, 1021)}
    wrong: list[int] = []

    def ask(triggers: range) -> None:
        for trigger in [*triggers] * 10:
            scores = changing.score(items=[1001, 1002], trigger=trigger)
            if not np.array_equal(scores.probability, expected[trigger]):
                wrong.append(trigger)

    threads = [threading.Thread(target=ask, args=(range(first, first + 5),)) for first in range(1001, 1021, 5)]
    for thread in threads:
        thread.start()
    for folder in (other, package, other):
        changing.reload(folder)
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_package_that_cannot_be_served_leaves_the_old_one_in_service(package: Path, tmp_path: Path) -> None:
    scorer = Scorer(package)
    before = scorer.score(items=[1001]).probability
    broken = shutil.copytree(package, tmp_path / "broken")
    (broken / "model.onnx").unlink()
    with pytest.raises(PackageError, match=r"model.onnx: is missing"):
        scorer.reload(broken)
    np.testing.assert_array_equal(scorer.score(items=[1001]).probability, before)
