"""The space of a search, the settings of its trials, and which trials need not go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution

from lightning_ccn.errors import OptionError
from lightning_ccn.studies.comparison.protocol import default_systems, systems_in_conf
from lightning_ccn.studies.comparison.search import (
    EndedTrial,
    Space,
    corners,
    is_hopeless,
    read_spaces,
    settings_of_trials,
)

ROOT = Path(__file__).parents[3]
RATES = {"learning_rates": {"low": 0.5, "high": 4, "log": True}}
GAIN = "model.system.init_args.gain"


def spaces_of(content: Any, folder: Path) -> Any:
    file = folder / "space.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return read_spaces(file, ["sim", "tan"], ["ccn"])


def test_the_spaces_in_conf_name_known_systems_alone() -> None:
    systems = default_systems()
    spaces = read_spaces(ROOT / "conf/search.yaml", systems, systems_in_conf())
    assert spaces.keys() == set(systems)
    assert all("learning_rates" in space for space in spaces.values())


def test_a_system_has_what_every_system_has_and_what_is_its_own(tmp_path: Path) -> None:
    spaces = spaces_of({"every": RATES, "tan": {GAIN: {"choices": [5, 20]}}, "ccn": {GAIN: {"choices": [1]}}}, tmp_path)
    assert spaces["sim"] == {"learning_rates": FloatDistribution(0.5, 4, log=True)}
    assert spaces["tan"] == {**spaces["sim"], GAIN: CategoricalDistribution([5, 20])}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("every: [1", "cannot be read"),
        ("every: [1, 2]", "must map systems to options"),
        ({"simm": RATES}, "simm: no such system; they are every, sim, tan"),
        ({"tan": RATES}, "has nothing to try for sim; add options under sim, or every"),
        ({"every": {"config": {"choices": ["conf/model/tan.yaml"]}}}, "config: a trial must not change it"),
        ({"every": {"model.system": {"choices": ["TAN"]}}}, "model.system: a trial must not change it"),
        ({"every": {"model.lr": {"low": 0.1, "high": 1}}}, "model.lr: a trial must not change it"),
        ({"every": {"seed_everything": {"choices": [1, 2]}}}, "seed_everything: a trial must not change it"),
        ({"every": {"learning_rates": {"low": 0, "high": 1}}}, "is not a range"),
        ({"every": {"learning_rates": {"choices": ["big"]}}}, "must be numbers above 0"),
        ({"every": {GAIN: {"low": 4, "high": 0.5}}}, "is not a range"),
        ({"every": {GAIN: {"low": 0, "high": 1, "log": True}}}, "is not a range"),
        ({"every": {GAIN: {"low": 1, "high": 2, "logg": True}}}, "is not a range"),
        ({"every": {GAIN: {"low": 1, "high": 2, "log": "no"}}}, "is not a range"),
        ({"every": {GAIN: {"low": 1, "high": float("inf")}}}, "is not a range"),
        ({"every": {GAIN: {"low": False, "high": True}}}, "is not a range"),
        ({"every": {GAIN: {"low": 1, "high": 2, "choices": [1]}}}, "is not a range"),
        ({"every": {GAIN: {"choices": "abc"}}}, "is not a range"),
        ({"every": {GAIN: 3}}, "is not a range"),
    ],
)
def test_a_space_that_cannot_be_meant_is_refused_in_one_line(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^--space ") as caught:
        spaces_of(content, tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_trials_are_the_same_whatever_their_number_and_within_their_ranges() -> None:
    space: Space = {"learning_rates": FloatDistribution(1.23456, 1.23459), GAIN: CategoricalDistribution([5, 20])}
    trials = settings_of_trials(space, 9)
    assert trials[0] == {} and len(trials) == 9
    assert settings_of_trials(space, 4) == trials[:4]
    assert all(1.23456 <= trial["learning_rates"] <= 1.23459 for trial in trials[1:])
    assert {trial[GAIN] for trial in trials[1:]} == {5, 20}


def test_corners_have_both_ends_of_every_range_and_every_choice() -> None:
    space: Space = {"learning_rates": FloatDistribution(0.5, 4), GAIN: CategoricalDistribution([1, 2, 3])}
    assert corners(space) == [
        {"learning_rates": 0.5, GAIN: 1},
        {"learning_rates": 4.0, GAIN: 2},
        {"learning_rates": 4.0, GAIN: 3},
    ]


def test_lists_are_given_to_a_trial_as_it_takes_them(tmp_path: Path) -> None:
    spaces = spaces_of({"every": {"model.system.init_args.hidden": {"choices": [[64, 32], [128]]}}}, tmp_path)
    assert spaces["sim"]["model.system.init_args.hidden"] == CategoricalDistribution(["[64, 32]", "[128]"])


def test_a_trial_is_hopeless_below_the_median_of_four_or_more_at_its_own_step() -> None:
    space: Space = {"learning_rates": FloatDistribution(0.5, 4)}
    ended = [EndedTrial({"learning_rates": 1.0}, {10: 0.60 + n / 100, 20: 0.7}, pruned=False) for n in range(4)]
    assert is_hopeless(space, ended, {10: 0.60})
    assert not is_hopeless(space, ended, {10: 0.62})
    assert is_hopeless(space, ended, {10: 0.62, 20: 0.65})
    assert not is_hopeless(space, ended[:3], {10: 0.60})
    assert not is_hopeless(space, ended, {})
