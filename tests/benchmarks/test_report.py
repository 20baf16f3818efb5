"""docs/performance.md and its figure show the stored measurement."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from benchmarks.numbers import AROUND, Numbers, Spread
from benchmarks.report import PAGE, filled, rendered, stored
from benchmarks.tables import spread
from docs.figures.performance import SVG, contestants, draw, label
from tests.docs.test_figures import texts

RUN = "run: python -m benchmarks.report"


def turns(**named: list[tuple[float, int, int]]) -> dict[str, Any]:
    """Turns of (seconds, items, steps)."""
    return {
        name: [{"seconds": s, "items": i, "steps": n, "reading": s / 4} for s, i, n in answers]
        for name, answers in named.items()
    }


@pytest.fixture
def numbers() -> Numbers:
    """TAN takes 2 seconds a step bare and 3 within `ccn fit`; CCN a tenth more than TAN; two peers."""
    parts = {"lookup": 0.25, "attention": 0.5, "backward": 1.0, "table update": 0.25}
    ours = {"parts": parts, "work": {"flops": 30.0, "bytes": 1.0, "table_bytes": 1.0}, "peak_mib": 900, "feed_mib": 100}
    ours |= {"items_of_batch": 12}
    contest = {
        "ours_tan": {**ours, "turns": turns(bare=[(4, 40, 2)] * 2, kept=[(6, 40, 2)] * 2, epoch=[(8, 40, 2)] * 2)},
        "ours_ccn": {**ours, "turns": turns(bare=[(4.4, 40, 2)] * 2)},
        "fuxictr_din": {"turns": turns(epoch=[(1, 10, 1), (1, 30, 1)]), "peak_mib": 50, "feed_mib": 10},
        "rechub_din": {"turns": turns(epoch=[(1, 15, 1), (1, 35, 1)]), "peak_mib": 70, "feed_mib": 10},
    }
    machine = {"turns": {"limits": [{"flops": {"large": 40.0, "small": 20.0}, "bytes": 5.0}] * 2}}
    return Numbers({"about": {}, "contest": contest, "reader": {}, "scaling": {}, "machine": machine})


def test_costs_compare_turns_of_the_same_round(numbers: Numbers) -> None:
    assert numbers.framework_cost("tan").median == pytest.approx(0.5)
    assert numbers.contrast_cost().values == pytest.approx((0.1, 0.1))
    assert Spread((2.0, 9.0)).over(Spread((1.0, 3.0))).values == (2.0, 3.0)


def test_parts_of_a_step_are_the_bare_ones_and_what_is_around_them(numbers: Numbers) -> None:
    parts = numbers.parts("tan")
    assert parts["reader"] == 8 / 4 / 2
    assert parts[AROUND] == 3 - 2
    assert parts["backward"] == 1.0


def test_the_share_of_the_peak_is_that_of_the_dense_part(numbers: Numbers) -> None:
    assert numbers.peak == 40.0
    assert numbers.dense_seconds("tan") == 1.5  # without lookup and update
    assert numbers.dense_share("tan") == pytest.approx(30.0 / 1.5 / 40.0)
    assert numbers.limit("tan") == 12 / (30.0 / 40.0)


def test_the_fastest_peer_is_that_of_the_highest_median(numbers: Numbers) -> None:
    assert numbers.speed("fuxictr_din").median == 20
    assert numbers.fastest_peer("din") == "rechub_din"
    assert numbers.fastest_peer("sim") is None
    assert numbers.memory("rechub_din") == 60


def test_a_spread_shows_the_median_and_both_ends() -> None:
    assert spread(Spread((0.001, 0.002, 1.5)), 1_000, 1) == "2.0 (1.0 to 1,500.0)"


def test_the_page_shows_the_stored_measurement() -> None:
    page = PAGE.read_text()
    assert filled(page, rendered(*stored())) == page, RUN


def test_the_drawing_shows_the_stored_measurement(tmp_path: Path) -> None:
    one, _ = stored()
    draw(one, tmp_path / "drawn.svg")
    assert texts(tmp_path / "drawn.svg") == texts(SVG), RUN  # other versions of matplotlib draw other paths
    assert all(f"{one.speed(name).median:,.0f}" in SVG.read_text() for name in contestants(one))
    assert len({label(name) for name in contestants(one)}) == len(contestants(one))


def test_another_measurement_changes_the_page() -> None:
    page = PAGE.read_text()
    one, two = stored()
    slower = deepcopy(one.entrants)
    for answer in slower["ours_din"]["turns"]["epoch"]:
        answer["seconds"] *= 2
    one.entrants = slower
    assert filled(page, rendered(one, two)) != page


def test_a_measurement_without_peers_can_be_shown() -> None:
    one, _ = stored()
    one.entrants = {name: found for name, found in one.entrants.items() if name.startswith(("ours", "instances"))}
    one.scaling.pop("din_rows")
    assert "fastest peer" not in rendered(one, None)["goals"]
    assert contestants(one)


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no comments <!-- goals: begin -->"):
        filled("# Performance", {"goals": "a table"})
