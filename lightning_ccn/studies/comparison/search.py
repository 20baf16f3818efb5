"""The search of a comparison: the same number of trials for every system, judged on the validation split.

A trial is a run with some options changed. Its options are a function of the system's space and the trial's number
alone, so any number of processes and machines can share the work, and the same command finds the same trials. Optuna
draws them, keeps them in a journal beside the cells, and says when a trial need not go on.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.pruners import MedianPruner
from optuna.samplers import QMCSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from lightning_ccn.errors import OptionError

LEARNING_RATES = "learning_rates"  # a factor on both rates of the configuration; every other name is one of `ccn fit`
EVERY = "every"
FEWEST_TO_PRUNE_BY = 4  # finished trials of the system

Settings = Mapping[str, Any]
Space = Mapping[str, BaseDistribution]

optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line per trial; the comparison says what it trains


def read_space(file: Path, system: str) -> dict[str, BaseDistribution]:
    """The space of a system: what the file says of `every` system, and what it says of this one.

    Args:
        file: YAML: system, then option, then `low` and `high` (with `log: true`, even on a logarithmic scale) or a
            list of `choices`.
        system: Name of the system's YAML file, without its suffix.

    Raises:
        OptionError: The file cannot be read, or an entry is neither a range nor a list of choices.
    """
    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise OptionError(f"--space {file}: cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise OptionError(f"--space {file}: must map systems to options, such as conf/search.yaml")
    space = {}
    for name in (EVERY, system):
        for option, entry in (content.get(name) or {}).items():
            space[option] = _distribution(entry, f"--space {file}: {name}: {option}")
    return space


def _distribution(entry: Any, place: str) -> BaseDistribution:
    try:
        if "choices" in entry:
            return CategoricalDistribution(entry["choices"])
        return FloatDistribution(float(entry["low"]), float(entry["high"]), log=bool(entry.get("log", False)))
    except (TypeError, KeyError, ValueError) as error:
        raise OptionError(
            f"{place}: {entry!r} is not a range ({error}); give {{low: 0.1, high: 1, log: true}} or {{choices: [a, b]}}"
        ) from None


def settings_of_trials(space: Space, count: int) -> list[Settings]:
    """The settings of the first `count` trials. Trial 0 is the configuration as it is; the others cover the space.

    They are points of a scrambled Sobol sequence, which covers a space more evenly than independent draws. Choices are
    independent draws.

    >>> space = {"learning_rates": FloatDistribution(0.5, 4, log=True)}
    >>> first, *others = settings_of_trials(space, 4)
    >>> first, settings_of_trials(space, 3)[1:] == others[:2]
    ({}, True)
    """
    if not space:
        return [{}]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # QMCSampler, since 2021
        sampler = QMCSampler(scramble=True, seed=0, warn_independent_sampling=False)
    draws = optuna.create_study(sampler=sampler)
    found: list[Settings] = [{}]
    for number in range(count):
        trial = draws.ask(dict(space))
        if number:  # the sampler learns the space from the first trial, whose values are independent draws
            found.append({name: _short(value) for name, value in trial.params.items()})
        draws.tell(trial, 0.0)
    return found[:count]


def _short(value: Any) -> Any:
    """A number with four digits: nobody reads or repeats more."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


class SearchJournal:
    """Optuna's journal of all trials of a comparison, which every process that works on it shares.

    Args:
        file: The journal. `optuna-dashboard FILE` shows it.
        spaces: The space of each system.
    """

    def __init__(self, file: Path, spaces: Mapping[str, Space]) -> None:
        self.file, self.spaces = file, spaces
        self.pruner = MedianPruner(n_startup_trials=FEWEST_TO_PRUNE_BY, n_min_trials=FEWEST_TO_PRUNE_BY)

    def is_hopeless(self, system: str, reached: Mapping[int, float]) -> bool:
        """Whether a trial is below the median of the system's finished trials at the last step that it reached.

        Args:
            system: Name of the system.
            reached: Validation AUC of the trial by training step.
        """
        if not reached:
            return False
        # the pruner reads only these of a trial that runs
        trial = create_trial(state=TrialState.COMPLETE, value=0.0, intermediate_values=dict(reached))
        return bool(self.pruner.prune(self._study(system), trial))

    def add(self, system: str, number: int, settings: Settings, reached: Mapping[int, float], pruned: bool) -> None:
        """Adds a trial that has ended; one that is there already stays as it is.

        Args:
            system: Name of the system.
            number: Number of the trial.
            settings: What the trial changed.
            reached: Validation AUC by training step.
            pruned: Whether it was ended early.
        """
        study = self._study(system)
        if not reached or any(trial.user_attrs.get("trial") == number for trial in study.get_trials(deepcopy=False)):
            return
        study.add_trial(
            create_trial(
                state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
                value=list(reached.values())[-1],
                params=dict(settings),
                distributions={name: self.spaces[system][name] for name in settings},
                user_attrs={"trial": number},
                intermediate_values=dict(reached),
            )
        )

    def _study(self, system: str) -> optuna.Study:
        storage = JournalStorage(JournalFileBackend(str(self.file)))
        return optuna.create_study(storage=storage, study_name=system, direction="maximize", load_if_exists=True)


def fit_options(settings: Settings) -> Iterator[str]:
    """The options of `ccn fit` that a trial changes, without its learning rates."""
    for name, value in settings.items():
        if name != LEARNING_RATES:
            yield f"--{name}={value:g}" if isinstance(value, float) else f"--{name}={value}"
