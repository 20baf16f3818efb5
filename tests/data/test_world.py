"""The promotion world: its stated properties, measured on the data that it writes."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from lightning_ccn.data.check.check import check
from lightning_ccn.data.dataset import SPLITS, Dataset
from lightning_ccn.data.parquet import decode, open_part
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.vocabulary import Vocabulary
from lightning_ccn.data.world import Visits, World, WorldConfig, generate, generate_world, split_visits
from lightning_ccn.data.world.draws import Draws, beta_logit
from lightning_ccn.data.world.knobs import RANGES
from lightning_ccn.data.world.original_ids import original_ids
from lightning_ccn.data.world.windows import windows
from lightning_ccn.errors import DataError

SMALL = WorldConfig(
    users=300,
    items=400,
    categories=12,
    sellers=30,
    train_pages=1_500,
    validation_pages=200,
    test_pages=700,
    page_min=4,
    page_max=30,
    long_length=40,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(SMALL, tmp_path_factory.mktemp("world") / "small")


@pytest.fixture(scope="module")
def world() -> World:
    return World(SMALL)


def read(folder: Path, split: str) -> dict[str, Any]:
    """All columns of a split; small worlds have one part of several row groups."""
    (path,) = sorted((folder / split).glob("*.parquet"))
    with open_part(path) as file:
        groups = [decode(file, group, file.schema_arrow.names) for group in range(file.num_row_groups)]
    return {name: join([group[name] for group in groups]) for name in groups[0]}


def join(columns: list[Any]) -> np.ndarray | Ragged:
    if not isinstance(columns[0], Ragged):
        return np.concatenate(columns)
    values, lengths = [np.concatenate([getattr(c, name) for c in columns]) for name in ("values", "lengths")]
    return Ragged.from_lengths(values, lengths)


def pages(world: World, count: int, promotion: int = 0) -> tuple[Visits, Ragged]:
    number = np.arange(count)
    visits = world.entrance.visits(promotion, number, 1_705_000_000 + number)
    return visits, world.recommender.exposures(visits, world.recommender.page_lengths(visits))


def page_of(items: Ragged) -> np.ndarray:
    return np.repeat(np.arange(len(items.lengths)), items.lengths)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What is written


def test_folder_passes_every_check_of_the_dataset_format(folder: Path) -> None:
    report = check(folder)
    assert (report.errors, report.warnings) == ([], []), str(report)


def test_splits_hold_the_page_views_asked_for(folder: Path) -> None:
    counts = {split: stats.pages for split, stats in Dataset.open(folder).splits.items()}
    assert counts == {"train": 1_500, "validation": 200, "test": 700}


def test_same_seed_writes_the_same_bytes_whatever_the_chunk(folder: Path, tmp_path: Path) -> None:
    assert contents(generate(SMALL, tmp_path / "again", chunk=37)) == contents(folder)


def test_another_seed_writes_another_world(folder: Path, tmp_path: Path) -> None:
    other = generate(replace(SMALL, seed=1), tmp_path / "other")
    for name in ("items.parquet", "train/part-00000.parquet", "test/part-00000.parquet"):
        assert (other / name).read_bytes() != (folder / name).read_bytes()


def test_what_is_hidden_is_only_in_the_test_split(folder: Path) -> None:
    truth = {"click_probability", "attainable_probability", "for_trigger"}
    for split in SPLITS:
        names = set(pq.read_schema(folder / split / "part-00000.parquet").names)
        assert names & truth == (truth if split == "test" else set())
    assert not {"intent", "clickiness", "taste"} & names


def test_behaviours_precede_the_page_in_order_and_the_trigger_is_one_of_the_recent(folder: Path) -> None:
    rows, names = read(folder, "train"), ("long_items", "long_times")
    for page in range(0, 1_500, 7):
        long, times = (rows[name].values[slice(*rows["long_items"].offsets[[page, page + 1]])] for name in names)
        short = rows["short_items"].values[slice(*rows["short_items"].offsets[[page, page + 1]])]
        assert 5 <= len(long) <= SMALL.long_length
        assert (np.diff(times) >= 0).all()
        assert times[-1] < rows["time"][page]
        np.testing.assert_array_equal(short, long[-SMALL.short_length :])
        assert rows["trigger"][page] in short


def test_long_sequence_holds_behaviours_of_the_triggers_category(folder: Path) -> None:
    category = pq.read_table(folder / "items.parquet")["category"].to_numpy()
    rows = read(folder, "test")
    same = category[rows["long_items"].values] == category[rows["trigger"]][page_of(rows["long_items"])]
    count = np.bincount(page_of(rows["long_items"]), same)
    assert count.min() >= 1
    assert count.mean() > 3  # several, most of the time: interests are categories


def test_a_users_history_only_grows(world: World) -> None:
    users = world.population.users(np.array([7, 7]))
    items, times = world.population.histories(users, np.array([1_704_067_200, 1_704_067_200 + 10 * 86_400]))
    pairs, first = list(zip(items.values, times.values, strict=True)), items.lengths[0]
    early, late = set(pairs[:first]), set(pairs[first:])
    lost = early - late
    assert late - early
    assert all(time < min(time for _, time in late) for _, time in lost)  # only what long_length cuts off


def test_exposed_items_of_a_page_are_distinct_and_not_the_trigger(folder: Path) -> None:
    rows = read(folder, "train")
    items, page = rows["items"], page_of(rows["items"])
    assert len(np.unique(np.stack([page, items.values]), axis=1).T) == len(page)
    assert not (items.values == rows["trigger"][page]).any()
    assert set(np.unique(items.lengths)) == set(range(4, 31))
    assert (rows["positions"].values == np.concatenate([np.arange(1, n + 1) for n in items.lengths])).all()


def test_row_0_is_left_to_the_unknown_and_ids_reach_the_last_row(folder: Path) -> None:
    rows = read(folder, "train")
    for column, last in (("user", 300), ("age", 6), ("gender", 2), ("city", 30)):
        assert (rows[column].min(), rows[column].max()) == (1, last)
    for column in ("items", "long_items"):
        assert (rows[column].values.min(), rows[column].values.max()) == (1, 400)
    items = pq.read_table(folder / "items.parquet")
    for column, last in (("category", 12), ("seller", 30)):
        values = items[column].to_numpy()
        assert values[0] == 0
        assert (values[1:].min(), values[1:].max()) == (1, last)


def test_tables_of_billions_of_users_are_reached_to_the_end() -> None:
    visits, _ = pages(World(replace(SMALL, users=2**36)), 2_000)
    assert len(np.unique(visits.users.user)) > 1_990
    assert visits.users.user.max() > 0.99 * 2**36


def test_long_sequences_may_be_a_thousand_behaviours() -> None:
    world = World(replace(SMALL, long_length=1_000))
    visits, _ = pages(world, 20)
    lengths = world.population.histories(visits.users, visits.time)[0].lengths
    assert lengths.max() == 1_000
    assert lengths.min() < 900


def test_memory_does_not_grow_with_the_number_of_pages(tmp_path: Path) -> None:
    peaks = []
    for count in (600, 3_600):
        tracemalloc.start()
        generate(replace(SMALL, train_pages=50, test_pages=count), tmp_path / str(count), chunk=100)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


# Time and promotions


def test_times_are_ordered_and_splits_follow_one_another(folder: Path) -> None:
    times = [read(folder, split)["time"] for split in SPLITS]
    assert all((np.diff(time) >= 0).all() for time in times)
    assert times[0][-1] < times[1][0] <= times[1][-1] < times[2][0]


def test_test_promotion_is_never_seen_in_training(folder: Path) -> None:
    promotions = [set(read(folder, split)["page_id"] >> 32) for split in SPLITS]
    assert promotions == [{0, 1, 2, 3}, {3}, {4}]


def test_stable_mix_tests_on_the_promotion_of_training() -> None:
    stable = windows(replace(SMALL, promotions=1, unseen_test=False))
    assert [[window.promotion for window in stable[split]] for split in SPLITS] == [[0], [0], [0]]


@pytest.mark.parametrize("unseen", [True, False])
@pytest.mark.parametrize(("promotions", "train", "validation"), [(1, 1, 1), (3, 10, 20), (7, 1_000_003, 17)])
def test_windows_hold_every_page_once_in_time_order(promotions: int, train: int, validation: int, unseen: bool) -> None:
    counts = {"train_pages": train, "validation_pages": validation, "test_pages": 29}
    config = replace(SMALL, promotions=promotions, unseen_test=unseen, first_promotion=5, **counts)
    found = windows(config)
    assert {f"{split}_pages": sum(window.pages for window in found[split]) for split in SPLITS} == counts
    flat = [window for split in SPLITS for window in found[split]]
    assert flat[0].promotion == 5
    for before, after in pairwise(flat):
        assert before.end <= after.start
        assert (before.promotion, before.first + before.pages) == (after.promotion, after.first) or after.first == 0
    for window in flat:
        times = window.times(window.first + np.array([0, window.pages - 1]))
        assert window.start <= times[0] <= times[1] < window.end


def test_promotions_differ_in_intent_mix_and_in_what_they_feature(world: World) -> None:
    mix, promoted = [], []
    for promotion in range(6):
        visits, items = pages(world, 1_000, promotion)
        mix.append(visits.intent.mean())
        category = world.catalogue.category[items.values]
        promoted.append(np.bincount(category, minlength=13) / len(category))
    assert np.ptp(mix) > 0.1
    assert np.abs(promoted[0] - promoted[1]).max() > 0.02


# Probabilities


def test_true_probabilities_are_calibrated(folder: Path) -> None:
    rows = read(folder, "test")
    check_calibration(rows["click_probability"].values, rows["clicks"].values, np.arange(len(rows["clicks"].values)))


def test_attainable_probabilities_are_calibrated(folder: Path) -> None:
    rows = read(folder, "test")
    check_calibration(rows["attainable_probability"].values, rows["clicks"].values, page_of(rows["clicks"]))


def check_calibration(probability: np.ndarray, click: np.ndarray, cluster: np.ndarray) -> None:
    """Clicks of each tenth, by probability, add up to its probabilities within 4 standard errors (by cluster)."""
    tenth = np.argsort(np.argsort(probability)) * 10 // len(probability)
    for number in range(10):
        inside = tenth == number
        excess = np.bincount(cluster[inside], (click - probability)[inside])
        assert abs(excess.sum()) < 4 * np.sqrt(np.square(excess).sum())


def test_no_score_without_the_hidden_state_beats_the_oracle(folder: Path) -> None:
    rows = read(folder, "test")
    oracle, attainable = (
        roc_auc_score(rows["clicks"].values, rows[name].values)
        for name in ("click_probability", "attainable_probability")
    )
    assert 0.6 < attainable < oracle - 0.02


def test_attainable_probability_is_the_mean_over_hidden_states(world: World) -> None:
    visits, items = pages(world, 20)
    rng, total = np.random.default_rng(0), np.zeros(len(items.values))
    for _ in range(2_000):
        hidden = replace(
            visits,
            for_trigger=rng.random(20) < visits.intent,
            clickiness=SMALL.page_clickiness * rng.standard_normal(20),
        )
        total += world.click_probability(hidden, items)
    np.testing.assert_allclose(world.attainable_probability(visits, items), total / 2_000, atol=0.03)


def test_nothing_is_hidden_without_clickiness_and_with_one_intent() -> None:
    world = World(replace(SMALL, page_clickiness=0.0, intent_spread=0.2))
    visits, items = pages(world, 50)
    certain = replace(visits, intent=visits.for_trigger.astype(np.float64))
    np.testing.assert_allclose(
        world.attainable_probability(certain, items), world.click_probability(certain, items), rtol=1e-12
    )


@pytest.mark.parametrize("rate", [0.08, 0.3])
def test_click_and_purchase_rates_are_what_the_knobs_say(rate: float) -> None:
    world = World(replace(SMALL, click_rate=rate, purchase_rate=rate / 2))
    clicks, purchases = [], []
    for visits in split_visits(world, "train", 500):
        items = world.recommender.exposures(visits, world.recommender.page_lengths(visits))
        clicks.append(world.attainable_probability(visits, items))
        purchases.append(clicks[-1] * world.purchase_probability(visits, items))
    click, purchase = np.concatenate(clicks), np.concatenate(purchases)
    assert click.mean() == pytest.approx(rate, rel=1e-4)  # all training pages are in the sample it is solved on
    assert purchase.sum() / click.sum() == pytest.approx(rate / 2, rel=1e-4)


def test_clicks_and_purchases_happen_at_those_rates(folder: Path) -> None:
    rows = read(folder, "train")
    click, purchase = rows["clicks"].values, rows["purchases"].values
    assert click.mean() == pytest.approx(SMALL.click_rate, rel=0.1)
    assert purchase.sum() / click.sum() == pytest.approx(SMALL.purchase_rate, rel=0.2)
    assert (purchase <= click).all()


def test_the_intent_decides_what_is_clicked(world: World) -> None:
    visits, items = pages(world, 1_000)
    catalogue, page = world.catalogue, page_of(items)
    alike = (catalogue.latent[items.values] * catalogue.latent[visits.trigger[page]]).sum(axis=1)
    wanted = world.population.fit(visits.users, page, items.values)
    for intent, drives, does_not in ((True, alike, wanted), (False, wanted, alike)):
        probability = world.click_probability(replace(visits, for_trigger=np.full(1_000, intent)), items)
        assert np.corrcoef(probability, drives)[0, 1] > np.corrcoef(probability, does_not)[0, 1] + 0.2


def test_a_later_position_is_clicked_less(world: World) -> None:
    visits, _ = pages(world, 100)
    item = np.full((100, 3), 11)  # the probability of any list can be asked for, of one item thrice too
    probability = world.click_probability(visits, Ragged.from_lengths(item.ravel(), np.full(100, 3))).reshape(100, 3)
    assert (np.diff(probability, axis=1) < 0).all()


def test_two_rankings_of_a_page_meet_the_same_luck() -> None:
    world = World(replace(SMALL, position_effect=0.0))
    visits, items = pages(world, 200)
    order = np.lexsort((-np.arange(len(items.values)), page_of(items)))  # each page's items, last first
    once = world.outcomes(visits, items)
    twice = world.outcomes(visits, Ragged(items.values[order], items.offsets))
    for first, second in zip(once, twice, strict=True):
        np.testing.assert_array_equal(first[order], second)


# A world and its folders


def test_world_of_a_folder_can_be_built_again(folder: Path) -> None:
    world = World(WorldConfig.load(folder))
    rows = read(folder, "test")
    (visits,) = split_visits(world, "test", chunk=700)
    again = world.rows(visits, rows["items"], truth=True)
    assert set(again) == set(rows)
    for name, column in again.items():
        if isinstance(column, Ragged):
            np.testing.assert_array_equal(column.values, rows[name].values)
        else:
            np.testing.assert_array_equal(column, rows[name])


def test_users_and_items_keep_their_parameters_when_the_tables_grow(world: World) -> None:
    grown = World(replace(SMALL, users=1_000, items=2_000, first_promotion=4))
    for name in ("category", "seller", "latent", "quality", "deal"):
        np.testing.assert_array_equal(getattr(world.catalogue, name), getattr(grown.catalogue, name)[:401])
    users = np.arange(1, 301)
    before, after = world.population.users(users), grown.population.users(users)
    for field in fields(before):
        np.testing.assert_array_equal(getattr(before, field.name), getattr(after, field.name))


def test_folders_of_a_world_share_their_original_ids_and_larger_ones_extend_them(folder: Path, tmp_path: Path) -> None:
    few = replace(SMALL, train_pages=50, validation_pages=10, test_pages=10)
    later = generate(replace(few, first_promotion=5, page_clickiness=0.0), tmp_path / "later")
    grown = generate(replace(few, users=900, items=700), tmp_path / "grown")
    before, after = Dataset.open(folder), Dataset.open(grown)
    assert set(before.digests) == set(before.schema.tables)
    assert Dataset.open(later).digests == before.digests
    for name, table in before.schema.tables.items():
        vocabulary = Vocabulary.load(grown / "vocabulary" / f"{name}.parquet")
        assert vocabulary.digest(rows=table.rows) == before.digests[name]
        assert (len(vocabulary) > table.rows) == (name in ("user", "item"))
    assert after.digests["user"] != before.digests["user"]


@pytest.mark.parametrize("knob", [{"seed": 1}, {"categories": 13}, {"long_length": 41}, {"intent_spread": 0.7}])
def test_two_worlds_have_no_original_id_in_common(knob: dict[str, Any]) -> None:
    here, there = (original_ids(config, World(config).schema) for config in (SMALL, replace(SMALL, **knob)))
    for name, vocabulary in here.items():
        assert not set(vocabulary.ids.to_pylist()) & set(there[name].ids.to_pylist())
        assert len(set(vocabulary.ids.to_pylist())) == len(vocabulary) - 1


def test_a_table_too_large_for_a_vocabulary_has_none() -> None:
    config = replace(SMALL, users=2**36)
    assert set(original_ids(config, World(config).schema)) == {*World(config).schema.tables} - {"user"}


def test_later_promotions_of_a_world_have_page_ids_of_their_own(folder: Path, tmp_path: Path) -> None:
    later = generate(replace(SMALL, first_promotion=5, train_pages=300, test_pages=50), tmp_path / "later")
    ids = np.concatenate([read(place, split)["page_id"] for place in (folder, later) for split in SPLITS])
    assert len(np.unique(ids)) == len(ids)


def test_command_reports_what_was_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    knobs: dict[str, Any] = {"users": 50, "items": 200, "train_pages": 60, "validation_pages": 10, "test_pages": 20}
    generate_world(tmp_path / "world", **knobs)
    said = capsys.readouterr().out
    assert "train" in said
    assert "60 pages" in said
    assert "click rate 0." in said
    assert WorldConfig.load(tmp_path / "world") == WorldConfig(**knobs)


# Knobs


def test_every_knob_is_documented_and_every_number_has_a_range() -> None:
    said = WorldConfig.__doc__ or ""
    for field in fields(WorldConfig):
        assert f"        {field.name}: " in said
        assert (field.name in RANGES) == (field.type != "bool")


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"users": 1}, "users is 1; choose from 2 to"),
        ({"click_rate": 1.5}, r"click_rate is 1.5; choose from 0.001 to 0.9"),
        ({"page_clickiness": float("nan")}, "page_clickiness is nan; choose from 0 to 5"),
        ({"users": 10.5}, "users is 10.5; it must be a whole number"),
        ({"click_rate": "high"}, "click_rate is 'high'; it must be a number"),
        ({"unseen_test": 1}, "unseen_test is 1; it must be true or false"),
        ({"near_trigger": 0.8}, "near_trigger [+] near_interests [+] popular is 1.3; the shares"),
        ({"page_min": 21}, "page_min is 21 and page_max 20; raise page_max or lower page_min"),
        ({"short_length": 200}, "short_length is 200 and long_length 100; raise long_length or lower short_length"),
        ({"categories": 6_000}, "categories is 6_000 and items 5_000; raise items or lower categories"),
        ({"items": 100, "page_max": 30}, "items is 100 and page_max 30; .* raise items to 120 or lower page_max"),
    ],
)
def test_bad_knob_is_rejected_by_name_value_and_remedy(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        WorldConfig(**knobs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file; only folders made by `ccn data world` have one"),
        ("users: [", "not YAML"),
        ("- users", "unknown or missing knobs: list"),
        (SMALL.to_yaml().replace("users:", "people:"), "unknown or missing knobs: people, users"),
        (SMALL.to_yaml().replace("users: 300", "users: many"), "users is 'many'; it must be a whole number"),
    ],
)
def test_bad_world_file_is_rejected_with_an_explanation(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "world.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        WorldConfig.load(tmp_path)


# Draws


def test_draws_depend_on_seed_purpose_and_every_counter() -> None:
    base = Draws(0).bits("a", 1, 2)
    for other in (Draws(1).bits("a", 1, 2), Draws(0).bits("b", 1, 2), Draws(0).bits("a", 2, 1), Draws(0).bits("a", 1)):
        assert other != base
    many = Draws(0).bits("a", np.arange(300)[:, None], np.arange(300))
    assert len(np.unique(many)) == 90_000
    np.testing.assert_array_equal(many[17:18, 23], Draws(0).bits("a", 17, 23))


def test_draws_stay_the_same_from_version_to_version() -> None:
    expected = [16602841890623331403, 16670432630394885717, 6463630880925962737]
    assert Draws(7).bits("p", np.arange(3), 5).tolist() == expected


def test_draws_have_the_distributions_they_are_named_after() -> None:
    draws, counters = Draws(0), np.arange(200_000)
    uniform, normal = draws.uniform("u", counters), draws.normals("n", counters, dims=3).astype(np.float64)
    assert np.histogram(uniform, 20, (0, 1))[0].std() < 4 * np.sqrt(10_000) / 2
    np.testing.assert_allclose(normal.mean(axis=0), 0, atol=0.01)
    np.testing.assert_allclose(np.cov(normal.T), np.eye(3), atol=0.015)
    np.testing.assert_allclose((normal**4).mean(axis=0), 3, atol=0.1)


@pytest.mark.parametrize("a", [0.2, 0.6, 1.0, 50.0])
def test_beta_logits_have_the_moments_of_a_beta(a: float) -> None:
    beta = 1 / (1 + np.exp(-beta_logit((np.arange(100_000) + 0.5) / 100_000, a)))
    assert beta.mean() == pytest.approx(0.5, abs=1e-3)
    assert beta.var() == pytest.approx(1 / (4 * (2 * a + 1)), rel=0.01)
