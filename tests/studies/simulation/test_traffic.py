"""New visits of a world: they are in no log, the same for all systems, and better rankings get more clicks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.places import Place
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.world import World, WorldConfig, generate
from lightning_ccn.errors import DataError
from lightning_ccn.studies.simulation.lift import METRICS, Outcome, lift
from lightning_ccn.studies.simulation.ranking import Ranking
from lightning_ccn.studies.simulation.reference import REFERENCES, reference_scores
from lightning_ccn.studies.simulation.runs import TrainedRun, read_scores
from lightning_ccn.studies.simulation.traffic import CHUNK, COUNTS, Traffic, best

CONFIG = WorldConfig(
    users=150, items=300, categories=8, sellers=20, promotions=2, train_pages=200, validation_pages=40, test_pages=60
)
VISITS, CANDIDATES = CHUNK + 300, 40  # one full chunk and a partial one


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.open(generate(CONFIG, tmp_path_factory.mktemp("world") / "log"))


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return Traffic(World(CONFIG), visits=VISITS, candidates=CANDIDATES, seed=0)


@pytest.fixture(scope="module")
def folder(traffic: Traffic, log: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulation") / "visits"
    traffic.write(folder, log)
    return folder


def page_ids(folder: Place) -> list[int]:
    ids: list[int] = pq.read_table(folder / "test").column("page_id").to_pylist()
    return ids


def test_visits_belong_to_the_test_promotion_and_are_in_no_log(log: Dataset, folder: Path, traffic: Traffic) -> None:
    ids = page_ids(folder)
    assert len(set(ids)) == VISITS
    assert {page >> 32 for page in ids} == {page >> 32 for page in page_ids(log.folder)} == {CONFIG.promotions}
    assert not set(ids) & set(page_ids(log.folder))
    test, fresh = log.splits["test"], Dataset.open(folder).splits["test"]
    assert test.first_time is not None and test.last_time is not None and fresh.first_time is not None
    week = 7 * 86_400
    assert fresh.first_time == test.first_time
    assert fresh.last_time is not None and test.last_time <= fresh.last_time < test.first_time + week


def test_visits_of_a_stable_world_follow_all_pages_of_its_last_promotion(tmp_path: Path) -> None:
    stable = WorldConfig(**{**CONFIG.__dict__, "unseen_test": False, "promotions": 1})
    traffic = Traffic(World(stable), visits=10, candidates=CANDIDATES, seed=0)
    assert (traffic.window.promotion, traffic.window.first) == (0, 300)


def test_another_seed_draws_other_visits(traffic: Traffic) -> None:
    other = Traffic(traffic.world, visits=VISITS, candidates=CANDIDATES, seed=1)
    assert other.window.first == traffic.window.first + VISITS


def test_candidates_are_distinct_and_begin_with_what_the_recommender_shows(folder: Path, traffic: Traffic) -> None:
    for visits, candidates in traffic.chunks(folder):
        assert (candidates.lengths == CANDIDATES).all()
        pages = candidates.values.reshape(-1, CANDIDATES)
        assert all(len(set(page)) == CANDIDATES for page in pages.tolist())
        assert not (pages == visits.trigger[:, None]).any()
        lengths = traffic.world.recommender.page_lengths(visits)
        shown = traffic.world.recommender.exposures(visits, lengths)
        kept = best(reference_scores("recommender", traffic.world, visits, candidates), candidates, lengths)
        assert kept.values.tolist() == shown.values.tolist()


def test_the_folder_has_the_trainings_counts_and_no_clicks(folder: Path, log: Dataset) -> None:
    written = Dataset.open(folder)
    assert written.schema == log.schema
    assert written.splits["train"] == log.splits["train"]  # Eq. 9 reads them
    assert written.splits["test"].pages == VISITS
    assert not {"clicks", "purchases", "positions"} & set(pq.read_schema(written.parts("test")[0]).names)


def test_the_best_are_shown_and_equal_scores_keep_their_order() -> None:
    candidates = Ragged(np.array([4, 5, 6, 7, 8, 9]), np.array([0, 4, 6]))
    shown = best(np.array([0.1, 0.4, 0.4, 0.2, 0.0, 9.0]), candidates, np.array([3, 1]))
    assert shown.values.tolist() == [5, 6, 7, 9]
    assert shown.lengths.tolist() == [3, 1]


def test_the_same_item_at_the_same_position_has_the_same_outcome_for_two_systems(
    folder: Path, traffic: Traffic
) -> None:
    rng, world = np.random.default_rng(0), traffic.world
    visits, candidates = next(traffic.chunks(folder))
    lengths = world.recommender.page_lengths(visits)
    quality = world.catalogue.quality[candidates.values]
    first, second = (best(quality + 0.2 * rng.normal(size=len(quality)), candidates, lengths) for _ in range(2))
    same = first.values == second.values
    assert 0.2 < same.mean() < 0.8
    for here, there in zip(world.outcomes(visits, first), world.outcomes(visits, second), strict=True):
        assert (here[same] == there[same]).all()
        assert here[same].any()


def test_counts_are_those_of_the_outcomes_user_by_user(folder: Path, traffic: Traffic) -> None:
    counts = traffic.serve(folder, (np.zeros(len(items.values)) for _, items in traffic.chunks(folder)))
    expected = {user: [1] + [0] * 8 for user in traffic.users.tolist()}
    category = traffic.world.catalogue.category
    for visits, _ in traffic.chunks(folder):
        shown = traffic.world.recommender.exposures(visits, traffic.world.recommender.page_lengths(visits))
        clicks, orders = traffic.world.outcomes(visits, shown)
        for page, user in enumerate(visits.users.user.tolist()):
            part = slice(shown.offsets[page], shown.offsets[page + 1])
            clicked, bought = int(clicks[part].sum()), int(orders[part].sum())
            alike = category[shown.values[part]] == category[visits.trigger[page]]
            row = [0, 1, clicked, clicked > 0, bought, bought > 0, len(alike), alike.sum(), clicks[part][alike].sum()]
            expected[user] = [old + new for old, new in zip(expected[user], row, strict=True)]
    assert counts.tolist() == list(expected.values())
    assert counts[:, COUNTS.index("visits")].sum() == VISITS


@pytest.fixture(scope="module")
def outcomes(folder: Path, traffic: Traffic) -> dict[str, Outcome]:
    """Of the references, and of rankings by chance."""
    served = {}
    for name in REFERENCES:
        scores = (reference_scores(name, traffic.world, *chunk) for chunk in traffic.chunks(folder))
        served[name] = Outcome([traffic.serve(folder, scores)], trained=False)
    for name, seed in (("chance", 0), ("other chance", 1), ("chance again", 0)):
        rng = np.random.default_rng(seed)
        scores = (rng.random(len(items.values)) for _, items in traffic.chunks(folder))
        served[name] = Outcome([traffic.serve(folder, scores)], trained=False)
    return served


def test_nobody_beats_the_oracle_and_what_is_hidden_costs(outcomes: dict[str, Outcome]) -> None:
    clicks = {name: outcome.values()["clicks_per_user"] or 0.0 for name, outcome in outcomes.items()}
    assert list(clicks)[:2] == sorted(clicks, key=lambda name: -clicks[name])[:2] == ["oracle", "attainable"]
    found = lift(outcomes["oracle"], outcomes["attainable"], METRICS["clicks_per_user"])
    assert found is not None and found.low > 0


def test_nobody_sells_more_than_the_oracle_that_ranks_by_orders(
    outcomes: dict[str, Outcome], folder: Path, traffic: Traffic
) -> None:
    ranking = Ranking("order")
    scores = (reference_scores("oracle", traffic.world, *chunk, ranking) for chunk in traffic.chunks(folder))
    by_order = Outcome([traffic.serve(folder, scores)], trained=False)
    found = lift(by_order, outcomes["oracle"], METRICS["orders_per_user"])
    assert found is not None and found.low > 0
    fewer = lift(by_order, outcomes["oracle"], METRICS["clicks_per_user"])
    assert fewer is not None and fewer.high < 0


def test_chance_has_no_lift_over_chance(outcomes: dict[str, Outcome]) -> None:
    for metric in METRICS.values():
        same = lift(outcomes["chance again"], outcomes["chance"], metric)
        other = lift(outcomes["other chance"], outcomes["chance"], metric)
        assert same is not None and other is not None
        assert (same.lift, same.low, same.high) == (0, 0, 0)
        assert other.low < 0 < other.high


@pytest.mark.parametrize("name", ["oracle", "attainable"])
def test_a_references_score_does_not_depend_on_the_position(name: str, folder: Path, traffic: Traffic) -> None:
    visits, candidates = next(traffic.chunks(folder))
    turned = candidates.values.reshape(-1, CANDIDATES)[:, ::-1]
    there = reference_scores(name, traffic.world, visits, Ragged(turned.ravel(), candidates.offsets))
    here = reference_scores(name, traffic.world, visits, candidates)
    assert np.allclose(there.reshape(-1, CANDIDATES)[:, ::-1].ravel(), here, rtol=1e-9)
    exact = {"oracle": traffic.world.click_probability, "attainable": traffic.world.attainable_probability}[name]
    first = candidates.offsets[:-1]  # candidates that are first already
    assert np.allclose(here[first], exact(visits, candidates)[first], rtol=1e-9)


def write_scores(folder: Path, chunks: list[dict[str, np.ndarray]]) -> Path:
    """Writes scores like `ccn predict`: one row group per batch."""
    folder.mkdir(exist_ok=True)
    tables = [pa.table(chunk) for chunk in chunks]
    with pq.ParquetWriter(folder / "part-00000-00000.parquet", tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    return folder


def test_scores_of_other_candidates_are_refused(folder: Path, traffic: Traffic, tmp_path: Path) -> None:
    rng, run = np.random.default_rng(0), TrainedRun("sim", tmp_path / "run")
    chunks: list[dict[str, np.ndarray]] = [
        {
            "page_id": np.repeat(visits.page_id, candidates.lengths),
            "item_id": candidates.values,
            "probability": rng.random(len(candidates.values), dtype=np.float32),
        }
        for visits, candidates in traffic.chunks(folder)
    ]
    assert len(chunks) == 2

    def read(chunks: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
        return list(read_scores(write_scores(tmp_path / "scores", chunks), run, traffic, folder, Ranking("click")))

    for score, chunk in zip(read(chunks), chunks, strict=True):
        assert (score == chunk["probability"]).all()
    swapped = {**chunks[1], "item_id": np.roll(chunks[1]["item_id"], 1)}
    undefined = {**chunks[1], "probability": np.full(len(swapped["item_id"]), np.nan, np.float32)}
    for broken in ([chunks[0]], [chunks[1], chunks[0]], [chunks[0], swapped], [chunks[0], undefined]):
        with pytest.raises(DataError, match="run: ccn predict did not give every candidate"):
            read(broken)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"visits": 0}, "visits is 0"),
        ({"seed": -1}, "seed -1"),
        ({"candidates": 19}, "choose from 20, the longest page of this world, to 75"),
        ({"candidates": 76}, "to 75, a quarter of its items"),
        ({"visits": 1}, "have the same user"),
        ({"seed": 2**32}, "exceeds the page numbers of a promotion"),
    ],
)
def test_impossible_arguments_are_refused_with_an_explanation(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Traffic(World(CONFIG), **{"visits": 100, "candidates": CANDIDATES, "seed": 0, **arguments})
