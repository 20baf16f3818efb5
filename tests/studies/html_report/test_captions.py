"""The sentences of the report that interpret its numbers."""

from __future__ import annotations

from typing import Any

from lightning_ccn.studies.html_report.captions import bounds, degrees, headline, learning, left_out_fact, page_sizes
from lightning_ccn.studies.html_report.method import method, search
from tests.studies.html_report.example import comparison, left_out


def with_step(content: dict[str, Any], low: float, high: float) -> dict[str, Any]:
    (step,) = (step for step in content["steps"] if (step["system"], step["to"]) == ("ccn", "tan"))
    step["versus"]["auc"] |= {"low": low, "high": high}
    return content


def test_the_headline_says_of_a_step_when_it_is_within_the_error() -> None:
    content = comparison(seeds=5, systems=("sim", "tan", "ccn"))
    within = " points above TAN (within the error). In page AUC"
    assert within in headline(with_step(content, -0.001, 0.002))
    assert within not in headline(with_step(content, 0.001, 0.002))
    assert " points above TAN. In page AUC" in headline(with_step(content, 0.001, 0.002))


def test_the_headline_names_the_systems_that_are_not_clearly_below_the_best() -> None:
    content = comparison(seeds=5, systems=("sim", "tan", "ccn"))
    for system, value in zip(content["systems"], (0.60, 0.6790, 0.6795), strict=True):
        system["summary"]["auc"] = {"mean": value, "se": 0.0003, "runs": 3}
    assert "CCN has the highest AUC, .6795 ± .0003; within two standard errors of it: TAN. In" in headline(content)
    content["systems"][1]["summary"]["auc"]["mean"] = 0.67
    assert "CCN has the highest AUC, .6795 ± .0003. In" in headline(content)


def test_a_comparison_that_left_something_out_says_so_where_it_explains_its_numbers() -> None:
    content = left_out()
    assert headline(content).startswith("Where training left out the scenario, CCN has the highest AUC")
    assert "Each is trained once for every left-out scenario and seed: 101." in method(content)[0]
    assert "left-out" not in " ".join(method(comparison(seeds=2, systems=("sim", "ccn"))))


def test_no_caption_of_left_out_values_says_what_is_true_of_one_test_split_alone() -> None:
    content, whole = left_out(), comparison(seeds=1, systems=("sim", "tan", "ccn"))
    assert left_out_fact(content) == {"each run leaves out": "1 of 3 values of scenario"}
    assert "Its AUC is .8582, a mean over the 3 left-out values of scenario, not 1" in bounds(content)
    assert bounds(content).endswith("a model can attain that knows all about the scenario: none that left it out does.")
    assert bounds(whole).endswith("the highest that a model can attain.")
    assert "“after” the test pages of scenario place 0, which this run left out." in degrees(content)
    assert "“after” the test split." in degrees(whole)
    assert "the baseline’s run with the same seed and left-out value, which reads the same pages" in learning(content)
    assert page_sizes(content, [(2, 3, 12)]).startswith("Page sizes: 2 to 3 items, up to 12 pages. ")
    assert page_sizes(whole, [(2, 10**9, 12)]).startswith("Page sizes: 2 or more, 12 pages. ")
    content["protocol"]["search_share"] = 1.0
    assert "after training on all training data" in search(content)
    said = method(content)[0]
    assert "of each run, the training pages without one scenario, and its test pages, once." in said
    assert "runs with the same seed and left-out value are paired" in said and "takes the values as the sample" in said
