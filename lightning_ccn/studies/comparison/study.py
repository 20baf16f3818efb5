"""The state of a comparison: which cells can be trained now, and the results of the finished ones."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_ccn.callbacks.page_effects_file import USER
from lightning_ccn.errors import DataError
from lightning_ccn.evaluation.metrics import metric_titles
from lightning_ccn.evaluation.page_effects import user_effects
from lightning_ccn.studies.comparison.cell import Cells
from lightning_ccn.studies.comparison.protocol import Cell, LeftOut, Protocol, Rates
from lightning_ccn.studies.comparison.search import EndedTrial, Settings, is_hopeless
from lightning_ccn.studies.comparison.statistics import over_values, paired, summary
from lightning_ccn.training.display import Display

BOUNDS = ("oracle_auc", "attainable_auc")
# What the trigger adds, then what contrast adds: a system, and the one that it is compared with.
STEPS = (("tan", "sim"), ("tan_bounded", "sim"), ("ccn", "tan"), ("ccn", "tan_bounded"))


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
            if not left:
                left = [c for _, c in self._finals(system) if self.cells.result(c) is None]
            searching += left
            if left:
                complete = False
                continue
            settings = self.settings(system)
            reporting += [c for _, c in self.protocol.reported(system, entry.rates, settings)]
            varying += [c for *_, c in self.protocol.sensitivity(system, entry.rates, settings)]
        return searching + [c for c in reporting + varying if self.cells.result(c) is None], complete

    def is_hopeless(self, cell: Cell) -> bool:
        """Whether a trial is below the median of its system's finished trials, at the last step with a validation."""
        ended = self.ended(cell.system)
        return is_hopeless(self.protocol.spaces[cell.system], ended, self._reached(cell))

    def ended(self, system: str) -> list[EndedTrial]:
        """The trials of a system that have ended so far."""
        found = []
        for settings, cell in self.protocol.search(system, self.entries[system].rates):
            if (result := self.cells.result(cell)) is not None:
                found.append(EndedTrial(settings, self._reached(cell), result.get("pruned", False)))
        return found

    def _reached(self, cell: Cell) -> dict[int, float]:
        """Validation AUC by step, as far as a run has come."""
        try:
            curve = learning_curve(self.cells.path(cell) / "metrics.csv")
        except (OSError, ValueError):  # not there yet, or being written
            return {}
        reached = zip(map(int, curve["val_step"]), curve["val_auc"], strict=True)
        return {step: value for step, value in reached if math.isfinite(value)}

    def settings(self, system: str) -> Settings:
        """Of an earlier comparison, or the best on validation, or the configuration as it is."""
        if system in self.protocol.chosen:
            return self.protocol.chosen[system]
        trials = self.trials(system)
        finalists = [trial for trial in trials if len(trial["val_aucs"]) > 1] or trials
        return max(finalists, key=_mean_auc)["settings"] if finalists else {}

    def trials(self, system: str) -> list[dict[str, Any]]:
        """Each trial of a system that has ended: `settings`, `val_aucs` by seed, and whether it was `pruned`.

        A finalist has several of `val_aucs`, when its further runs are finished.
        """
        found = self._first_runs(system)
        for number, cell in self._finals(system):
            found[number]["val_aucs"].append(self._val_auc(cell))
        return found

    def _first_runs(self, system: str) -> list[dict[str, Any]]:
        found = []
        for settings, cell in self.protocol.search(system, self.entries[system].rates):
            result = self.cells.result(cell)
            assert result is not None
            pruned = result.get("pruned", False)
            value = list(self._reached(cell).values())[-1] if pruned else self._val_auc(cell)
            found.append({"settings": settings, "val_aucs": [value], "pruned": pruned})
        return found

    def _finals(self, system: str) -> list[tuple[int, Cell]]:
        """(number of the trial, cell) of each further run of the best trials; all trials have ended."""
        trials = dict(enumerate(self._first_runs(system)))
        best = sorted(trials, key=lambda number: _mean_auc(trials[number]), reverse=True)[: self.protocol.finalists]
        finalists = {number: trials[number]["settings"] for number in best if not trials[number]["pruned"]}
        return list(self.protocol.finals(system, self.entries[system].rates, finalists))

    def _val_auc(self, cell: Cell) -> float:
        value: float | None = self._metrics(cell).get("val_auc")
        if value is None:
            raise DataError(
                f"{self.cells.path(cell)}: has no AUC on the validation split, so nothing can be chosen by it; let "
                "validations run, or search nothing with --trials 1"
            )
        return value

    def _metrics(self, cell: Cell) -> dict[str, Any]:
        metrics: dict[str, Any] = json.loads((self.cells.path(cell) / "metrics.json").read_text())
        return metrics

    def minutes(self) -> float:
        """Sum of the training times of all cells, in minutes."""
        found = 0.0
        for system, entry in self.entries.items():
            settings = self.settings(system)
            cells = [cell for _, cell in self.protocol.search(system, entry.rates)]
            cells += [cell for _, cell in self._finals(system)]
            cells += [cell for _, cell in self.protocol.reported(system, entry.rates, settings)]
            cells += [cell for *_, cell in self.protocol.sensitivity(system, entry.rates, settings)]
            for cell in cells:
                result = self.cells.result(cell)
                found += result["minutes"] if result else 0.0
        return found

    def systems(self, baseline_name: str, left_out: LeftOut | None = None) -> list[dict[str, Any]]:
        """For each system: its search, its runs, their summary, and its differences to the baseline.

        Args:
            baseline_name: Name of a system; if the comparison does not include it, `versus` is None in every entry.
            left_out: Which of the protocol's; None for a protocol that leaves nothing out.
        """
        found = [self._system(system, left_out) for system in self.entries]
        baseline = next((system for system in found if system["name"] == baseline_name), None)
        for system in found:
            system["versus"] = None
            if baseline is not None and system is not baseline:
                system["versus"] = self._versus(system, baseline, left_out)
        return found

    def steps(self, systems: Sequence[dict[str, Any]], left_out: LeftOut | None = None) -> list[dict[str, Any]]:
        """The paper's steps from one system to the next: `system`, `to`, and `versus`, the differences by metric.

        Args:
            systems: What `systems` returned for the same `left_out`.
            left_out: Which of the protocol's; None for a protocol that leaves nothing out.
        """
        by_name = {system["name"]: system for system in systems}
        return [
            {"system": one, "to": other, "versus": self._versus(by_name[one], by_name[other], left_out)}
            for one, other in STEPS
            if one in by_name and other in by_name
        ]

    def _versus(
        self, system: dict[str, Any], baseline: dict[str, Any], left_out: LeftOut | None
    ) -> dict[str, dict[str, Any]]:
        """The differences of two systems, by metric."""
        effects = self._mean_effects(system["name"], baseline["name"], left_out)
        found = {}
        for metric in metric_titles():
            found[metric] = paired(_by_seed(system, metric), _by_seed(baseline, metric), effects.get(metric))
        return found

    def _mean_effects(self, system: str, baseline: str, left_out: LeftOut | None) -> dict[str, np.ndarray]:
        """Effect of each user of the test split on the mean difference of two systems, by metric.

        Of each page, if the runs say nothing of users. Empty if a run has no effects: it was trained by an earlier
        version.
        """
        of_seeds, users = [], None
        cells = [self._seeds(name, left_out) for name in (system, baseline)]
        for seed in cells[0]:
            one, other = (self.cells.page_effects(of[seed]) for of in cells)
            if not one or not other:
                return {}
            users = one.pop(USER, users)
            of_seeds.append({metric: one[metric] - other[metric] for metric in one.keys() & other.keys()})
        known = set.intersection(*map(set, of_seeds))  # a cell of an earlier version has fewer
        means = {metric: np.mean([effects[metric] for effects in of_seeds], axis=0) for metric in known}
        return means if users is None else {metric: user_effects(mean, users) for metric, mean in means.items()}

    def _seeds(self, system: str, left_out: LeftOut | None) -> dict[int, Cell]:
        reported = self.protocol.reported(system, self.entries[system].rates, self.settings(system))
        return {seed: cell for seed, cell in reported if cell.left_out == left_out}

    def _system(self, system: str, left_out: LeftOut | None) -> dict[str, Any]:
        entry, settings = self.entries[system], self.settings(system)
        runs = [self._run(seed, cell) for seed, cell in self._seeds(system, left_out).items()]
        values = {name: [run["metrics"].get(name) for run in runs] for name in metric_titles()}
        values["items_per_second"] = [run["metrics"]["train_items_per_second"] for run in runs]
        values["minutes"] = [run["minutes"] for run in runs]
        return {
            "name": system,
            "title": entry.display.title or system,
            "family": entry.display.family,
            "paper_auc": entry.display.paper_auc,
            "parameters": {"tables": entry.table_parameters, "dense": entry.dense_parameters},
            "settings": settings,
            "search": self.trials(system),
            "runs": runs,
            # of a left-out value no run is dropped, so that the rows of the report add up to the mean over values
            "summary": {
                name: over_values(of_runs) if left_out else summary(of_runs)
                for name, of_runs in values.items()
                if any(of_runs)
            },
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
            for option, value, seed, cell in self.protocol.sensitivity(system, entry.rates, self.settings(system)):
                metrics = self._metrics(cell)
                run = {"seed": seed, "auc": metrics["auc"], "page_gauc": metrics["page_gauc"]}
                found.setdefault(option, {}).setdefault(value, []).append(run)
        return {
            option: [{"value": value, "runs": runs} for value, runs in values.items()]
            for option, values in found.items()
        }


def _by_seed(system: dict[str, Any], metric: str) -> dict[int, float | None]:
    return {run["seed"]: run["metrics"].get(metric) for run in system["runs"]}


def _mean_auc(trial: dict[str, Any]) -> float:
    """What a trial is judged by: its mean over seeds; a trial that ended early is below all others."""
    return -1.0 if trial["pruned"] else float(np.mean(trial["val_aucs"]))


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
