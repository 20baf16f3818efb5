"""The sentences of the report that interpret its numbers."""

from __future__ import annotations

from typing import Any

from lightning_ccn.studies.html_report.captions import headline, method
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
