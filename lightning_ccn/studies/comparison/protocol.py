"""What is compared, and how: systems, seeds, and one budget of learning rates for all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

SYSTEMS = (
    "wide_deep",
    "din",
    "sim",
    "dihn",
    "dian",
    "tan_bare",
    "tan_bounded",
    "tan",
    "ccn_without_tsi",
    "ccn_without_attraction",
    "ccn_without_repulsion",
    "ccn",
)
TITLES = {
    "wide_deep": "Wide&Deep",
    "din": "DIN",
    "sim": "SIM",
    "dihn": "DIHN",
    "dian": "DIAN",
    "tan_bare": "TAN w/o CM & TSI",
    "tan_bounded": "TAN, bounded degree",
    "tan": "TAN",
    "ccn_without_tsi": "CCN w/o TSI",
    "ccn_without_attraction": "CCN w/o attraction",
    "ccn_without_repulsion": "CCN w/o repulsion",
    "ccn": "CCN",
}
PAPER_AUC = {  # of the paper's Table 2, on its own data; it does not say which bound its TAN has
    "wide_deep": 0.6872,
    "din": 0.7117,
    "sim": 0.7276,
    "dihn": 0.7259,
    "dian": 0.7200,
    "tan_bare": 0.7281,
    "tan": 0.7293,
    "ccn_without_tsi": 0.7315,
    "ccn_without_attraction": 0.7312,
    "ccn_without_repulsion": 0.7309,
    "ccn": 0.7326,
}
SEARCH_SEED = 0  # of no run that is reported
SENSITIVITY: Mapping[str, tuple[float, ...]] = {  # of CCN
    "contrast_weight": (0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
    "temperature": (0.1, 0.2, 0.5, 1.0, 2.0),
    "scale": (0.71, 0.8, 1.0, 2.0),  # below 1 / ln(1 + pi) = .704 an angle could leave [0, pi)
}


@dataclass(frozen=True)
class Cell:
    """One trained model of a comparison.

    Attributes:
        system: name of its YAML file.
        id: of the run, unique in the system.
        options: of `ccn fit`, beside those that all cells share.
    """

    system: str
    id: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Rates:
    """Learning rates of a configuration: of the dense layers, and of the tables."""

    dense: float
    tables: float

    def options(self, scale: float) -> tuple[str, ...]:
        """Those of `ccn fit` that multiply both."""
        return (
            f"--model.lr={self.dense * scale:g}",
            f"--trainer.strategy.init_args.table_lr={self.tables * scale:g}",
        )


@dataclass(frozen=True)
class Protocol:
    """Which models are trained.

    Attributes:
        seeds: of the reported runs.
        scales: of the learning rates that are tried for every system; the best on the validation split is taken.
        search_share: of the training batches, for those tries and for the sensitivity.
        sensitivity_seeds: how many of the seeds train CCN with each value of `SENSITIVITY`.
        chosen: scales of systems that another comparison has searched for already.
    """

    seeds: tuple[int, ...]
    scales: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    search_share: float = 1.0
    sensitivity_seeds: int = 1
    chosen: Mapping[str, float] = field(default_factory=dict)

    def search(self, system: str, rates: Rates) -> Iterator[tuple[float, Cell]]:
        """(scale, cell that tries it); none where there is nothing to choose from."""
        if system in self.chosen or len(self.scales) < 2:
            return
        for scale in self.scales:
            options = (*_batches(self.search_share), *_seed(SEARCH_SEED), *rates.options(scale))
            yield scale, Cell(system, f"search-x{scale:g}", (*options, "--test_after_fit=false"))

    def reported(self, system: str, rates: Rates, scale: float) -> Iterator[tuple[int, Cell]]:
        """(seed, cell) of the system's runs."""
        for seed in self.seeds:
            yield seed, Cell(system, f"seed{seed}", (*_seed(seed), *rates.options(scale)))

    def sensitivity(self, system: str, rates: Rates, scale: float) -> Iterator[tuple[str, float, int, Cell]]:
        """(option, value, seed, cell) of the runs that show what CCN's own options do."""
        if system != "ccn":
            return
        for option, values in SENSITIVITY.items():
            for value in values:
                for seed in self.seeds[: self.sensitivity_seeds]:
                    options = (*_batches(self.search_share), *_seed(seed), *rates.options(scale))
                    changed = f"--model.system.init_args.{option}={value:g}"
                    yield option, value, seed, Cell(system, f"{option}{value:g}-seed{seed}", (*options, changed))


def _batches(share: float) -> tuple[str, ...]:
    return (f"--trainer.limit_train_batches={share:g}",) if share < 1 else ()


def _seed(seed: int) -> tuple[str, ...]:
    return (f"--seed_everything={seed}",)


def configuration(system: str) -> Path:
    """The YAML file of a system, which is named by it: the one of that name in conf/model, or itself."""
    return Path(system) if system.endswith((".yaml", ".yml")) else Path("conf/model") / f"{system}.yaml"
