"""The search of a comparison: the same number of trials for every system, judged on the validation split.

A trial is a run with some options changed. Its options are a function of the system's space and the trial's number
alone, so any number of processes and machines can share the work, and the same command finds the same trials. Optuna
draws them and says when a trial need not go on. The run folders of the cells are the only state; a journal for Optuna's
own tools is written from them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import optuna
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.pruners import MedianPruner
from optuna.samplers import QMCSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from lightning_ccn.errors import OptionError

LEARNING_RATES = "learning_rates"  # a factor on both rates of the configuration; every other name is one of `ccn fit`
EVERY = "every"
FEWEST_TO_PRUNE_BY = 4  # finished trials of the system

OF_THE_DATA = ("data.batch_pages", "data.short_length", "data.long_length")
# what makes a system what it is, and the rates that `learning_rates` multiplies
FIXED = ("model.lr", "model.system", "model.system.class_path", "trainer.strategy.init_args.table_lr")
RANGES = ({"low", "high"}, {"low", "high", "log"})
SCALARS = (str, int, float, bool)

Settings = Mapping[str, Any]
Tried = FloatDistribution | CategoricalDistribution
Space = Mapping[str, Tried]

optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line per trial; the comparison says what it trains


def read_spaces(file: Path, systems: Sequence[str], known: Collection[str]) -> dict[str, Space]:
    """The space of each system: what the file says of `every` system, and what it says of this one.

    Args:
        file: YAML: system, then option, then `low` and `high` (with `log: true`, spread evenly over orders of
            magnitude) or a list of `choices`.
        systems: The systems to compare; a system's name is that of its YAML file, without the suffix.
        known: Names of further systems that the file may speak of.

    Raises:
        OptionError: The file cannot be read, names an unknown system or an option that a trial must not change, has
            nothing for a system, or an entry is neither a range nor a list of choices.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise OptionError(f"--space {file}: cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict) or not all(isinstance(options, dict | None) for options in content.values()):
        raise OptionError(f"--space {file}: must map systems to options, as conf/search.yaml does")
    if unknown := sorted(str(name) for name in content if name not in {EVERY, *systems, *known}):
        raise OptionError(f"--space {file}: {unknown[0]}: no such system; they are {', '.join([EVERY, *systems])}")
    spaces: dict[str, Space] = {}
    for system in systems:
        options = {**(content.get(EVERY) or {}), **(content.get(system) or {})}
        if not options:
            raise OptionError(
                f"--space {file}: has nothing to try for {system}; add options under {system}, or {EVERY}"
            )
        spaces[system] = {
            name: _distribution(name, entry, f"--space {file}: {name}") for name, entry in options.items()
        }
    return spaces


def _distribution(name: Any, entry: Any, place: str) -> Tried:
    free = str(name).startswith(("model.", "trainer.strategy.init_args.")) or name in OF_THE_DATA
    if name != LEARNING_RATES and (not free or name in FIXED):
        raise OptionError(
            f"{place}: a trial must not change it; it may change {LEARNING_RATES}, {', '.join(OF_THE_DATA)}, and "
            f"options under model. and trainer.strategy.init_args., but not {', '.join(FIXED)}"
        )
    words = set(entry) if isinstance(entry, dict) else set()
    choices = entry["choices"] if words == {"choices"} else None
    if isinstance(choices, list) and choices:
        if name == LEARNING_RATES and not all(_is_number(choice) and choice > 0 for choice in choices):
            raise OptionError(f"{place}: {choices} are factors, so they must be numbers above 0")
        return CategoricalDistribution([choice if isinstance(choice, SCALARS) else _flow(choice) for choice in choices])
    low, high, log = (entry.get(word) if words else None for word in ("low", "high", "log"))
    positive = log or name == LEARNING_RATES
    if words in RANGES and log in (None, True, False) and _is_number(low) and _is_number(high):
        ends = float(low), float(high)
        if (ends[0] > 0 or not positive) and ends[0] <= ends[1]:
            return FloatDistribution(*ends, log=bool(log))
    raise OptionError(
        f"{place}: {entry!r} is not a range; give {{low: 0.1, high: 1}}, also with log: true if both are above 0, or "
        "{choices: [64, 128]}, as whole numbers need it"
    )


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _flow(value: Any) -> str:
    """A list or a mapping as `ccn fit` takes it, in one line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf).strip()


def corners(space: Space) -> list[Settings]:
    """Settings that together have both ends of every range and every choice."""
    ends = {
        name: list(of.choices) if isinstance(of, CategoricalDistribution) else [of.low, of.high]
        for name, of in space.items()
    }
    longest = max(map(len, ends.values()), default=0)
    return [{name: values[min(at, len(values) - 1)] for name, values in ends.items()} for at in range(longest)]


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
            found.append({name: _short(value, space[name]) for name, value in trial.params.items()})
        draws.tell(trial, 0.0)
    return found[:count]


def _short(value: Any, of: Tried) -> Any:
    """A number with four digits, which is what people read and repeat; within its range."""
    if isinstance(of, FloatDistribution):
        return min(max(float(f"{value:.4g}"), of.low), of.high)
    return value


@dataclass(frozen=True)
class EndedTrial:
    """A trial that has ended.

    Attributes:
        settings: What it changed.
        reached: Validation AUC by training step.
        pruned: Whether it was ended early.
    """

    settings: Settings
    reached: Mapping[int, float]
    pruned: bool

    def frozen(self, space: Space) -> FrozenTrial:
        """The same for Optuna."""
        return create_trial(
            state=TrialState.PRUNED if self.pruned else TrialState.COMPLETE,
            value=list(self.reached.values())[-1],
            params=dict(self.settings),
            distributions={name: space[name] for name in self.settings},
            intermediate_values=dict(self.reached),
        )


def is_hopeless(space: Space, ended: Sequence[EndedTrial], reached: Mapping[int, float]) -> bool:
    """Whether a trial is below the median of the system's finished trials at the last step that it reached.

    Args:
        space: Space of the system.
        ended: The system's trials that have ended.
        reached: Validation AUC of the trial by training step.
    """
    if not reached:
        return False
    study = optuna.create_study(direction="maximize")
    study.add_trials([trial.frozen(space) for trial in ended if trial.reached])
    pruner = MedianPruner(n_startup_trials=FEWEST_TO_PRUNE_BY, n_min_trials=FEWEST_TO_PRUNE_BY)
    return bool(pruner.prune(study, EndedTrial({}, reached, pruned=False).frozen(space)))


def write_journal(file: Path, spaces: Mapping[str, Space], ended: Mapping[str, Sequence[EndedTrial]]) -> None:
    """Writes all trials of a comparison as an Optuna journal, which `optuna-dashboard FILE` shows.

    Args:
        file: The journal; an older one is replaced.
        spaces: Space of each system.
        ended: Trials of each system.
    """
    partial = file.with_name(f"{file.name}.part").absolute()  # Optuna's lock is a link, which must not be relative
    partial.unlink(missing_ok=True)
    storage = JournalStorage(JournalFileBackend(str(partial)))
    for system, trials in ended.items():
        study = optuna.create_study(storage=storage, study_name=system, direction="maximize")
        study.add_trials([trial.frozen(spaces[system]) for trial in trials if trial.reached])
    partial.replace(file)


def fit_options(settings: Settings) -> Iterator[str]:
    """The options of `ccn fit` that a trial changes, without its learning rates."""
    for name, value in settings.items():
        if name != LEARNING_RATES:
            yield f"--{name}={value:g}" if isinstance(value, float) else f"--{name}={value}"
