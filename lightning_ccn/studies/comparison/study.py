"""The state of a comparison: which cells can be trained now, and the results of the finished ones."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_ccn.errors import DataError
from lightning_ccn.evaluation.metrics import metric_titles
from lightning_ccn.studies.comparison.cell import Cells
from lightning_ccn.studies.comparison.protocol import Cell, Protocol, Rates
from lightning_ccn.studies.comparison.statistics import paired, summary
from lightning_ccn.training.display import Display

BOUNDS = ("oracle_auc", "attainable_auc")


@dataclass(frozen=True)
class Entry:
    """A system of the comparison, as its options describe it.

    Attributes:
        display: How tables and figures show it.
        rates: Learning rates of its configuration.
        table_parameters: Number of parameters in its embedding tables.
        dense_parameters: Number of all other parameters.
    """

    display: Display
    rates: Rates
    table_parameters: int
    dense_parameters: int


class Study:
    """The cells of a comparison, and what their run folders hold.

    Args:
        protocol: Which models are trained.
        entries: The systems, by name.
        cells: The run folders of the cells.
    """

    def __init__(self, protocol: Protocol, entries: dict[str, Entry], cells: Cells) -> None:
        self.protocol, self.entries, self.cells = protocol, entries, cells

    def ready(self) -> tuple[list[Cell], bool]:
        """The unfinished cells that can be trained now, and whether no others will follow.

        Raises:
            DataError: A cell was trained with other options, or a search has no valid AUC.
        """
        searching, reporting, varying, complete = [], [], [], True
        for system, entry in self.entries.items():
            left = [c for _, c in self.protocol.search(system, entry.rates) if self.cells.result(c) is None]
            searching += left
            if left:
                complete = False
                continue
            scale = self.scale(system)
            reporting += [c for _, c in self.protocol.reported(system, entry.rates, scale)]
            varying += [c for *_, c in self.protocol.sensitivity(system, entry.rates, scale)]
        return searching + [c for c in reporting + varying if self.cells.result(c) is None], complete

    def scale(self, system: str) -> float:
        """Factor of the learning rates: of an earlier comparison, or the best on validation, or the only one."""
        if system in self.protocol.chosen:
            return self.protocol.chosen[system]
        searched = self._searched(system)
        return max(searched, key=lambda scale: searched[scale]) if searched else self.protocol.scales[0]

    def _searched(self, system: str) -> dict[float, float]:
        """AUC on the validation split, by scale."""
        found = {}
        for scale, cell in self.protocol.search(system, self.entries[system].rates):
            value = self._metrics(cell)["val_auc"]
            if value is None:
                raise DataError(
                    "the validation split's AUC is undefined (are all its labels equal?), so no learning rate can be "
                    "chosen by it: repair the data, or name one scale with --scales 1"
                )
            found[scale] = value
        return found

    def _metrics(self, cell: Cell) -> dict[str, Any]:
        metrics: dict[str, Any] = json.loads((self.cells.path(cell) / "metrics.json").read_text())
        return metrics

    def minutes(self) -> float:
        """Sum of the training times of all cells, in minutes."""
        found = 0.0
        for system, entry in self.entries.items():
            scale = self.scale(system)
            cells = [cell for _, cell in self.protocol.search(system, entry.rates)]
            cells += [cell for _, cell in self.protocol.reported(system, entry.rates, scale)]
            cells += [cell for *_, cell in self.protocol.sensitivity(system, entry.rates, scale)]
            for cell in cells:
                result = self.cells.result(cell)
                found += result["minutes"] if result else 0.0
        return found

    def systems(self, baseline_name: str) -> list[dict[str, Any]]:
        """For each system: its search, its runs, their summary, and its differences to the baseline.

        Args:
            baseline_name: Name of a system; if the comparison does not include it, `versus` is None in every entry.
        """
        found = [self._system(system) for system in self.entries]
        baseline = next((system for system in found if system["name"] == baseline_name), None)
        for system in found:
            system["versus"] = None
            if baseline is not None and system is not baseline:
                system["versus"] = {
                    name: paired(_by_seed(system, name), _by_seed(baseline, name)) for name in metric_titles()
                }
        return found

    def _system(self, system: str) -> dict[str, Any]:
        entry, scale = self.entries[system], self.scale(system)
        runs = [self._run(seed, cell) for seed, cell in self.protocol.reported(system, entry.rates, scale)]
        values = {name: [run["metrics"].get(name) for run in runs] for name in metric_titles()}
        values["items_per_second"] = [run["metrics"]["train_items_per_second"] for run in runs]
        values["minutes"] = [run["minutes"] for run in runs]
        return {
            "name": system,
            "title": entry.display.title or system,
            "family": entry.display.family,
            "paper_auc": entry.display.paper_auc,
            "parameters": {"tables": entry.table_parameters, "dense": entry.dense_parameters},
            "scale": scale,
            "search": [{"scale": scale, "val_auc": auc} for scale, auc in self._searched(system).items()],
            "runs": runs,
            "summary": {name: summary(of_runs) for name, of_runs in values.items() if any(of_runs)},
        }

    def _run(self, seed: int, cell: Cell) -> dict[str, Any]:
        folder, result = self.cells.path(cell), self.cells.result(cell)
        assert result is not None
        diagnostics = folder / "diagnostics.json"
        return {
            "seed": seed,
            "minutes": result["minutes"],
            "metrics": self._metrics(cell),
            "curve": learning_curve(folder / "metrics.csv"),
            "diagnostics": json.loads(diagnostics.read_text()) if diagnostics.exists() else None,
        }

    def sensitivity(self) -> dict[str, list[dict[str, Any]]]:
        """For each option of CCN that was varied: its values, and the AUCs of the runs with each value."""
        found: dict[str, dict[float, list[dict[str, Any]]]] = {}
        for system, entry in self.entries.items():
            for option, value, seed, cell in self.protocol.sensitivity(system, entry.rates, self.scale(system)):
                metrics = self._metrics(cell)
                run = {"seed": seed, "auc": metrics["auc"], "page_gauc": metrics["page_gauc"]}
                found.setdefault(option, {}).setdefault(value, []).append(run)
        return {
            option: [{"value": value, "runs": runs} for value, runs in values.items()]
            for option, values in found.items()
        }


def _by_seed(system: dict[str, Any], metric: str) -> dict[int, float | None]:
    return {run["seed"]: run["metrics"].get(metric) for run in system["runs"]}


def learning_curve(file: Path) -> dict[str, list[float]]:
    """The learning curves in a run's metrics.csv.

    Returns:
        `step` and `loss` (mean cross entropy of training since the line before), `val_step` and `val_auc`.
    """
    curve: dict[str, list[float]] = {"step": [], "loss": [], "val_step": [], "val_auc": []}
    with file.open(newline="") as lines:
        for line in csv.DictReader(lines):
            for steps, name, column in (("step", "loss", "train_ce"), ("val_step", "val_auc", "val_auc")):
                if line.get(column):
                    curve[steps].append(int(line["step"]) + 1)
                    curve[name].append(float(line[column]))
    return curve


def bounds(systems: Sequence[dict[str, Any]]) -> dict[str, float]:
    """AUCs of the best possible rankings, by name; empty unless the data come from a synthetic world."""
    metrics = systems[0]["runs"][0]["metrics"]
    return {name: metrics[name] for name in BOUNDS if name in metrics}
