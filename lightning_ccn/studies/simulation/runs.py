"""The trained models of a simulation: their run folders, their world and their scores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.leave_out import FILE as LEFT_OUT
from lightning_ccn.data.parquet import open_part, parts_of, value_column
from lightning_ccn.data.places import Place, place
from lightning_ccn.data.rules import read_items
from lightning_ccn.data.world import World, WorldConfig
from lightning_ccn.data.world.knobs import FILE
from lightning_ccn.errors import DataError
from lightning_ccn.studies.comparison.cell import RESULT
from lightning_ccn.studies.comparison.processes import environment, start_ccn
from lightning_ccn.studies.comparison.protocol import read_display
from lightning_ccn.studies.simulation.ranking import Ranking
from lightning_ccn.studies.simulation.traffic import CHUNK, Traffic

SCORES = ["page_id", "item_id", "probability"]  # columns that `ccn predict` writes
ORDER_SCORE = "order_probability"  # and with an order head
MISSING = "no such file; give the folder of a run that `ccn fit` has finished"


@dataclass(frozen=True)
class TrainedRun:
    """A run folder of `ccn fit`.

    Attributes:
        system: Name of the system that it trained; runs with the same name are pooled.
        folder: The run folder, with config.yaml and checkpoints/last.ckpt.
    """

    system: str
    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The run's options.

        Raises:
            DataError: There is no config.yaml, or it is not a file of options.
        """
        path = self.folder / "config.yaml"
        if not path.exists():
            raise DataError(f"{path}: {MISSING}")
        try:
            config = yaml.safe_load(path.read_text())
        except yaml.YAMLError as error:
            raise DataError(f"{path}: {error}") from None
        if not isinstance(config, dict):
            raise DataError(f"{path}: holds no options; `ccn fit` did not write this file")
        return config

    @property
    def checkpoint(self) -> Path:
        """The checkpoint at the end of the run, whose metrics are in metrics.json."""
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def data(self) -> Place:
        """The dataset folder that the run was trained on.

        Raises:
            DataError: The run is incomplete, its training left something out, or its data do not come from a synthetic
                world.
        """
        path = self.folder / "config.yaml"
        if not self.checkpoint.exists():
            raise DataError(f"{self.checkpoint}: {MISSING}")
        try:
            folder = place(self.config["data"]["folder"])
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}: has no data.folder ({error!r}); `ccn fit` did not write this file") from None
        if left_out := self._left_out(folder):
            raise DataError(
                f"{self.folder}: its training left out {left_out} (--leave_out), and a simulation shows pages of every "
                "value; give a run that was trained on all pages"
            )
        if not folder.is_dir():
            raise DataError(f"{path}: data.folder {folder} does not exist; simulate on a machine that has it")
        if not (folder / FILE).exists():
            raise DataError(
                f"{folder}: these data do not come from a synthetic world (there is no {FILE}), so nothing is known "
                "about clicks on other items; simulate runs of a folder that `ccn data world` wrote"
            )
        return folder

    def _left_out(self, data: Place) -> str:
        """What `ccn compare --leave_out` kept from the run, by its cell.json or its data; usually nothing."""
        mark = _read(data / LEFT_OUT)
        found = _read(self.folder / RESULT).get("left_out") or ({mark["column"]: mark["value"]} if mark else {})
        return ", ".join(f"{column} {value}" for column, value in found.items())

    @property
    def has_order_head(self) -> bool:
        """Whether its model estimates orders, by the run's options."""
        model = self.config.get("model")
        return isinstance(model, dict) and bool(model.get("order_weight"))

    @property
    def title(self) -> str:
        """The system's name in tables, `display.title` of the run's options; `system` if there is none."""
        return read_display(self.folder / "config.yaml").title or self.system

    @property
    def order(self) -> int:
        """The system's place among others, smallest first: `display.order` of the run's options."""
        return read_display(self.folder / "config.yaml").order


def _read(file: Place) -> dict[str, Any]:
    """The content of a JSON file; empty if there is none."""
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def runs_of_comparison(folder: Path) -> tuple[list[TrainedRun], list[Path]]:
    """The finished reported runs in a folder of `ccn compare`, and the folders of the unfinished ones.

    Raises:
        DataError: There is no finished run.
    """
    cells = sorted(path for path in folder.glob("cells/*/seed*") if path.is_dir())
    done = [path for path in cells if (path / RESULT).exists()]
    if not done and any(folder.glob("cells/*/without-*")):
        raise DataError(
            f"{folder}: each of its runs left some pages out (--leave_out), and a simulation shows all; give the "
            "folder of a comparison without it"
        )
    if not done:
        raise DataError(f"{folder}: no finished run in cells/; give the --output folder of `ccn compare`")
    return [TrainedRun(path.parent.name, path) for path in done], [path for path in cells if path not in done]


def named_runs(words: Sequence[str]) -> list[TrainedRun]:
    """Runs given as NAME=FOLDER.

    Raises:
        DataError: A word has another form, or is given twice.
    """
    runs = []
    for word in words:
        name, equals, folder = word.partition("=")
        if not (name and equals and folder):
            raise DataError(f"--runs: '{word}' is not NAME=FOLDER, as in sim=runs/default/20260101-000000")
        run = TrainedRun(name, Path(folder))
        if run in runs:
            raise DataError(f"--runs: '{word}' is given twice")
        runs.append(run)
    return runs


def refuse_without_order_head(runs: Sequence[TrainedRun]) -> None:
    """Checks that every model estimates orders.

    Raises:
        DataError: One does not.
    """
    for run in runs:
        if not run.has_order_head:
            raise DataError(
                f"{run.folder}: has no order head, so it cannot be ranked by orders: train it with "
                "--model.order_weight 1, or rank by click"
            )


def world_of(runs: Sequence[TrainedRun]) -> tuple[World, Dataset]:
    """The synthetic world from which the data of all runs come, and the data of the first run.

    Raises:
        DataError: A run is incomplete, its data do not come from a synthetic world, or the runs have different worlds.
    """
    first_runs = {run.data: run for run in reversed(runs)}  # the first run of each folder
    configs = {folder: WorldConfig.load(folder) for folder in first_runs}
    first = runs[0].data
    for folder, config in configs.items():
        one, other = asdict(configs[first]), asdict(config)
        differences = [f"{name} {one[name]} and {other[name]}" for name in one if one[name] != other[name]]
        if differences:
            raise DataError(
                f"{first_runs[first].folder} and {first_runs[folder].folder} have different worlds "
                f"({', '.join(differences)}): simulate the runs of each world separately"
            )
    dataset, world = Dataset.open(first), World(configs[first])
    category = value_column(read_items(dataset), "category")
    if dataset.schema != world.schema or not np.array_equal(category, world.catalogue.category):
        raise DataError(f"{first}: world.yaml does not describe the world of this folder; generate the folder again")
    return world, dataset


def predict(run: TrainedRun, data: Path, scratch: Path, worker: int) -> Path:
    """Scores the candidates with `ccn predict`, in a process of its own with one thread.

    Args:
        run: The run whose model scores.
        data: The folder that `Traffic.write` wrote.
        scratch: A folder for this call alone.
        worker: Number of the call; chooses the GPU.

    Returns:
        The Parquet file, for `read_scores`.

    Raises:
        DataError: `ccn predict` failed; the message has its error.
    """
    options = [
        *("--config", str(run.folder / "config.yaml"), "--ckpt_path", str(run.checkpoint), "--data.folder", str(data)),
        # in the folder's order, one chunk per batch, whatever options the run was trained with
        *("--data.batch_pages", str(CHUNK), "--data.lanes", "1", "--data.predict_split", "test"),
        *("--trainer.devices", "1", "--trainer.num_nodes", "1", "--trainer.enable_progress_bar", "false"),
        *("--runs", str(scratch), "--experiment", "predict", "--run_id", "predict", "--wandb", "off"),
        *("--output", str(scratch / "scores")),
    ]
    log = scratch / "predict.log"
    if start_ccn(["predict", *options], log, environment(worker)).wait():
        lines = log.read_text(errors="replace").strip().splitlines() or ["it printed nothing"]
        reason = next((line for line in lines if line.startswith("ccn: error: ")), lines[-1])
        raise DataError(f"{run.folder}: ccn predict failed: {reason.removeprefix('ccn: error: ')}")
    return scratch / "scores"


def read_scores(path: Path, run: TrainedRun, traffic: Traffic, data: Path, ranking: Ranking) -> Iterator[np.ndarray]:
    """Reads what `predict` wrote.

    Args:
        path: The folder.
        run: The run whose model scored.
        traffic: The visits; each of their chunks is a row group of its parts.
        data: The folder that `Traffic.write` wrote.
        ranking: What candidates are ranked by.

    Yields:
        Float [candidates of the chunk], what `Ranking.scores` makes of the probabilities.

    Raises:
        DataError: A candidate's score is missing, out of order or not finite.
    """
    columns = [*SCORES, ORDER_SCORE] if ranking.needs_orders else SCORES
    groups = _row_groups(path, columns)
    for visits, candidates in traffic.chunks(data):
        page_id, item_id, *scores = next(groups, [np.zeros(0)] * len(columns))
        same = np.array_equal(page_id, np.repeat(visits.page_id, candidates.lengths))
        if not (same and np.array_equal(item_id, candidates.values) and all(np.isfinite(s).all() for s in scores)):
            raise DataError(f"{run.folder}: ccn predict did not give every candidate of every visit a finite score")
        yield ranking.scores(scores[0], scores[1] if ranking.needs_orders else None)


def _row_groups(folder: Path, columns: list[str]) -> Iterator[list[np.ndarray]]:
    """The columns of each row group, part by part."""
    for path in parts_of(folder):
        with open_part(path) as file:
            for group in range(file.num_row_groups):
                yield [np.asarray(column) for column in file.read_row_group(group, columns).select(columns).columns]
