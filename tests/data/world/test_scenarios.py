"""Worlds of several scenarios: how they differ, and that a world of one is what it was before there were any."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.check.check import check
from lightning_ccn.data.dataset import SPLITS, Dataset
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.world import Visits, World, WorldConfig, generate
from lightning_ccn.data.world.knobs import FILE
from lightning_ccn.evaluation.world_bounds import world_bounds

ONE = WorldConfig(
    users=300,
    items=400,
    categories=12,
    sellers=30,
    train_pages=600,
    validation_pages=200,
    test_pages=700,
    page_min=4,
    page_max=20,
    long_length=30,
)
MANY = replace(ONE, scenarios=5)


@pytest.fixture(scope="module")
def world() -> World:
    return World(MANY)


@pytest.fixture(scope="module")
def pages(world: World) -> tuple[Visits, Ragged]:
    number = np.arange(4_000)
    visits = world.entrance.visits(1, number, 1_705_000_000 + number)
    return visits, world.recommender.exposures(visits, world.recommender.page_lengths(visits))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(MANY, tmp_path_factory.mktemp("world") / "many")


def page_of(items: Ragged) -> np.ndarray:
    return np.repeat(np.arange(len(items.lengths)), items.lengths)


def test_a_world_of_one_scenario_is_what_it_was_before_there_were_any(tmp_path: Path) -> None:
    here = generate(replace(ONE, train_pages=100, validation_pages=20, test_pages=20), tmp_path / "one")
    rows = pq.read_table(here / "train/part-00000.parquet")
    written = np.concatenate([rows[name].combine_chunks().flatten().to_numpy() for name in ("items", "clicks")])
    assert hashlib.sha256(written.astype("<i8").tobytes()).hexdigest()[:16] == "5a9dccfe89ad8e11"
    assert "scenario" not in rows.column_names
    assert "scenario" not in (here / "schema.yaml").read_text() + (here / FILE).read_text()
    assert WorldConfig.load(here).scenarios == 1


def test_every_page_names_its_scenario_and_the_folder_passes_every_check(folder: Path) -> None:
    report = check(folder)
    assert (report.errors, report.warnings) == ([], []), str(report)
    assert Dataset.open(folder).schema.tables["scenario"].rows == 6
    assert WorldConfig.load(folder) == MANY
    for split in SPLITS:
        found = np.bincount(pq.read_table(folder / split)["scenario"].to_numpy(), minlength=6)
        assert found[0] == 0
        assert (found[1:] > 0.6 * found.sum() / 5).all()


def test_scenarios_show_their_slice_of_the_catalogue_and_their_page_lengths(
    world: World, pages: tuple[Visits, Ragged]
) -> None:
    (visits, items), of = pages, world.scenarios
    scenario, category = visits.scenario[page_of(items)], world.catalogue.category[items.values]
    assert of.shown[scenario, category].all()
    shares = of.shown[1:] @ world.catalogue.count / MANY.items
    assert (shares >= 0.4).all() and np.ptp(shares) > 0.1
    assert len({tuple(shown) for shown in of.shown[1:]}) == 5
    for k in range(1, 6):
        lengths = items.lengths[visits.scenario == k]
        assert (lengths.min(), lengths.max()) == (of.shortest[k], of.longest[k])
        assert MANY.page_min <= of.shortest[k] and of.longest[k] == of.shortest[k] + 8 <= MANY.page_max


def test_scenarios_differ_in_intent_clicks_and_clickiness_as_their_draws_say(
    world: World, pages: tuple[Visits, Ragged]
) -> None:
    (visits, items), of, some = pages, world.scenarios, range(1, 6)
    page = page_of(items)
    intent = [visits.intent[visits.scenario == k].mean() for k in some]
    spread = [visits.clickiness[visits.scenario == k].std() for k in some]
    assert np.corrcoef(intent, of.intent[1:])[0, 1] > 0.9 and np.ptp(intent) > 0.1
    np.testing.assert_allclose(spread, of.clickiness[1:], rtol=0.15)
    in_none = replace(visits, scenario=np.zeros_like(visits.scenario))
    shift = _logit(world, visits, items) - _logit(world, in_none, items)
    np.testing.assert_allclose(shift, of.clicks[visits.scenario[page]], atol=1e-9)
    for drawn, bound in ((of.intent, 2.0), (of.clicks, 0.8)):
        assert np.abs(drawn[1:]).max() <= bound and np.ptp(drawn[1:]) > bound / 4
    factor = of.clickiness[1:] / MANY.page_clickiness
    assert factor.min() >= 0.5 and factor.max() <= 1.5


def _logit(world: World, visits: Visits, items: Ragged) -> np.ndarray:
    probability = world.click_probability(visits, items)
    return np.log(probability / (1 - probability))


def test_the_attainable_probability_averages_over_what_is_hidden_in_each_scenario(
    world: World, pages: tuple[Visits, Ragged]
) -> None:
    visits, items = pages
    click, attainable = world.outcomes(visits, items)[0], world.attainable_probability(visits, items)
    scenario = visits.scenario[page_of(items)]
    for k in range(1, 6):  # calibrated within each scenario, and not only over all of them
        excess = np.bincount(page_of(items)[scenario == k], (click - attainable)[scenario == k])
        assert abs(excess.sum()) < 4 * np.sqrt(np.square(excess).sum())
    few, rng = world.entrance.visits(1, np.arange(800), visits.time[:800]), np.random.default_rng(0)
    items = Ragged(items.values[: items.offsets[800]], items.offsets[:801])
    drawn = np.zeros(len(items.values))
    for _ in range(100):
        hidden = replace(
            few,
            for_trigger=rng.random(800) < few.intent,
            clickiness=world.scenarios.clickiness[few.scenario] * rng.standard_normal(800),
        )
        drawn += world.click_probability(hidden, items) / 100
    error = attainable[: len(drawn)] - drawn
    means = np.bincount(scenario[: len(drawn)], error)[1:] / np.bincount(scenario[: len(drawn)])[1:]
    assert np.abs(means).max() < 0.006


def test_the_mean_click_rate_of_all_scenarios_is_that_of_the_knob(folder: Path) -> None:
    train = Dataset.open(folder).splits["train"]
    assert train.clicks / train.items == pytest.approx(MANY.click_rate, rel=0.1)


def test_bounds_of_a_folder_of_scenarios_are_those_of_its_true_probabilities(folder: Path) -> None:
    bounds = world_bounds(Dataset.open(folder))
    assert 0.6 < bounds["attainable_auc"] < bounds["oracle_auc"] - 0.02


def test_a_scenario_is_the_same_whatever_their_number() -> None:
    few, more = World(MANY).scenarios, World(replace(MANY, scenarios=9)).scenarios
    for name in ("intent", "clicks", "clickiness", "shortest", "longest", "shown", "instead"):
        np.testing.assert_array_equal(getattr(few, name), getattr(more, name)[:6])


def test_a_page_does_not_depend_on_the_others_of_a_call(world: World, pages: tuple[Visits, Ragged]) -> None:
    number = np.array([7, 911])
    visits = world.entrance.visits(1, number, 1_705_000_000 + number)
    items = world.recommender.exposures(visits, world.recommender.page_lengths(visits))
    np.testing.assert_array_equal(visits.scenario, pages[0].scenario[number])
    for at, page in enumerate(number):
        alone, among = (of.values[slice(*of.offsets[[n, n + 1]])] for of, n in ((items, at), (pages[1], page)))
        np.testing.assert_array_equal(alone, among)


def test_scenarios_that_show_every_category_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    few = replace(MANY, categories=2, train_pages=40, validation_pages=10, test_pages=10)
    whole = int(World(few).scenarios.shown[1:].all(axis=1).sum())
    assert whole > 0
    generate(few, tmp_path / "few")
    assert caplog.messages == [
        f"world: {whole} of 5 scenarios show all 2 categories, so they do not differ in what they show; raise "
        "categories"
    ]
    assert World(MANY).scenarios.warning() is None and World(replace(few, scenarios=1)).scenarios.warning() is None
