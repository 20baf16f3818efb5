"""What is compared, and how: systems, seeds, and the same number of trials for every system."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml

from lightning_ccn.conf_files import CONF, find_conf
from lightning_ccn.errors import OptionError
from lightning_ccn.studies.comparison.search import LEARNING_RATES, Settings, Space, fit_options, settings_of_trials
from lightning_ccn.training.display import Display

YAML_SUFFIXES = (".yaml", ".yml")
SEARCH_SEED = 0  # not the seed of any reported run
FINAL_SEEDS = (1, 2)  # of the further runs of the best trials; not of any reported run either
SENSITIVITY: Mapping[str, tuple[float, ...]] = {  # values of CCN's own options
    "contrast_weight": (0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
    "temperature": (0.1, 0.2, 0.5, 1.0, 2.0),
    "scale": (0.71, 0.8, 1.0, 2.0),  # below 1 / ln(1 + pi) = .704 an angle could leave [0, pi)
}


@dataclass(frozen=True)
class LeftOut:
    """A value of a column that a run is not trained on, and the only one that it is tested on.

    Attributes:
        column: Name of the column, a profile feature.
        value: The value, a row of the feature's table.
    """

    column: str
    value: int

    @property
    def folder(self) -> str:
        """Name of the dataset folder that leaves it out."""
        return f"{self.column}-{self.value}"


@dataclass(frozen=True)
class Cell:
    """One run of a comparison. A comparison is a table of systems x seeds, and a cell is one run in it.

    Attributes:
        system: Name of the system's YAML file, without its suffix.
        id: The run's id, unique within the system.
        options: Options of `ccn fit` beyond those that all cells share.
        trial: Number of the trial of the search that this run is; None for every other run.
        left_out: What the run is not trained on; None for a run on all data.
    """

    system: str
    id: str
    options: tuple[str, ...]
    trial: int | None = None
    left_out: LeftOut | None = None


@dataclass(frozen=True)
class Rates:
    """Learning rates of a configuration.

    Attributes:
        dense: Of the dense layers.
        tables: Of the embedding tables.
    """

    dense: float
    tables: float

    def options(self, scale: float) -> tuple[str, ...]:
        """Options of `ccn fit` that set both rates, multiplied by `scale`."""
        return (
            f"--model.lr={self.dense * scale:g}",
            f"--trainer.strategy.init_args.table_lr={self.tables * scale:g}",
        )

    def with_settings(self, settings: Settings) -> tuple[str, ...]:
        """Options of `ccn fit` for these rates with what a trial changes."""
        return (*self.options(settings.get(LEARNING_RATES, 1.0)), *fit_options(settings))


@dataclass(frozen=True)
class Protocol:
    """Which runs a comparison consists of.

    Attributes:
        seeds: Seeds of the reported runs. A seed draws the initial weights and the order of the pages.
        trials: Number of trials of each system, with one seed each. A single one is the configuration as it is.
        spaces: Space of the trials of each system.
        finalists: Number of trials of each system, the best on the validation split, that run with further seeds. The
            one with the best mean AUC is used. 1: the best trial is used as it is.
        search_share: Share of the training batches in the search and in the sensitivity runs.
        sensitivity_seeds: Number of runs of CCN for each value in `SENSITIVITY`.
        chosen: Settings of each system that an earlier comparison has already searched for.
        left_out: What is left out, one at a time: every reported run is repeated for each. Empty: all data are used.
    """

    seeds: tuple[int, ...]
    trials: int = 8
    spaces: Mapping[str, Space] = field(default_factory=dict)
    finalists: int = 3
    search_share: float = 1.0
    sensitivity_seeds: int = 1
    chosen: Mapping[str, Settings] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()

    def search(self, system: str, rates: Rates) -> Iterator[tuple[Settings, Cell]]:
        """(settings, cell that tries them). Empty if nothing is searched, or an earlier comparison has chosen."""
        if system in self.chosen or self.trials < 2:
            return
        for number, settings in enumerate(settings_of_trials(self.spaces.get(system, {}), self.trials)):
            yield settings, Cell(system, f"trial{number}", self._trial(SEARCH_SEED, rates, settings), number)

    def finals(self, system: str, rates: Rates, finalists: Mapping[int, Settings]) -> Iterator[tuple[int, Cell]]:
        """(number of the trial, cell) of each further run of the finalists. Empty if there is only one to choose.

        Args:
            system: The system.
            rates: Its learning rates.
            finalists: Settings of the best trials, by number of the trial.
        """
        if len(finalists) < 2:
            return
        for number, settings in finalists.items():
            for seed in FINAL_SEEDS:
                yield number, Cell(system, f"trial{number}-seed{seed}", self._trial(seed, rates, settings))

    def _trial(self, seed: int, rates: Rates, settings: Settings) -> tuple[str, ...]:
        return (
            *_batches(self.search_share),
            *_seed(seed),
            *rates.with_settings(settings),
            "--test_after_fit=false",
        )

    def reported(self, system: str, rates: Rates, settings: Settings) -> Iterator[tuple[int, Cell]]:
        """(seed, cell) of each of the system's reported runs; with something left out, all seeds of each."""
        for left_out in self.left_out or (None,):
            without = f"without-{left_out.folder}-" if left_out else ""
            for seed in self.seeds:
                options = (*_seed(seed), *rates.with_settings(settings))
                yield seed, Cell(system, f"{without}seed{seed}", options, left_out=left_out)

    def sensitivity(self, system: str, rates: Rates, settings: Settings) -> Iterator[tuple[str, float, int, Cell]]:
        """(option, value, seed, cell) of each run that varies one of CCN's own options."""
        if system != "ccn":
            return
        for option, values in SENSITIVITY.items():
            for value in values:
                for seed in self.seeds[: self.sensitivity_seeds]:
                    options = (*_batches(self.search_share), *_seed(seed), *rates.with_settings(settings))
                    changed = f"--model.system.init_args.{option}={value:g}"
                    yield option, value, seed, Cell(system, f"{option}{value:g}-seed{seed}", (*options, changed))


def _batches(share: float) -> tuple[str, ...]:
    return (f"--trainer.limit_train_batches={share:g}",) if share < 1 else ()


def _seed(seed: int) -> tuple[str, ...]:
    return f"--seed_everything={seed}", f"--data.seed={seed}"


def default_systems() -> list[str]:
    """Names of all systems in `conf/model`, in the order of their `display`."""
    return sorted(_known_systems(), key=lambda name: (read_display(CONF / "model" / f"{name}.yaml").order, name))


def systems_in_conf() -> list[str]:
    """Names of all systems in `conf/model` and `conf/ablation`."""
    return [path.stem for folder in ("model", "ablation") for path in (CONF / folder).glob("*.yaml")]


def configuration(system: str) -> Path:
    """The YAML file of a system, as `ccn fit --config` takes it.

    Args:
        system: Name of a file in `conf/model`, or a YAML file.

    Returns:
        A path `conf/model/NAME.yaml`, the same whatever the current folder, so that cells trained from different
        folders agree; or the given path.

    Raises:
        OptionError: There is no such file.
    """
    path = Path(system) if system.endswith(YAML_SUFFIXES) else Path("conf/model") / f"{system}.yaml"
    if not find_conf(path).is_file():
        raise OptionError(f"--systems: there is no {path}; conf/model has {', '.join(sorted(_known_systems()))}")
    return path


def read_display(config: Path) -> Display:
    """The `display` block of a YAML file of options; the defaults if there is none, as in a run of version 0.1.0."""
    try:
        content = yaml.safe_load(config.read_text())
    except (OSError, yaml.YAMLError):
        return Display()
    block = content.get("display") if isinstance(content, dict) else None
    values = block if isinstance(block, dict) else {}
    return Display(**{a.name: values[a.name] for a in fields(Display) if a.name in values})


def _known_systems() -> list[str]:
    return [path.stem for path in (CONF / "model").glob("*.yaml")]
