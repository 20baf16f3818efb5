"""The trained models of a simulation: where they lie, of which world they are, and what they score."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import yaml

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.parquet import open_part
from lightning_ccn.data.rules import read_items
from lightning_ccn.data.world import World, WorldConfig
from lightning_ccn.data.world.knobs import FILE
from lightning_ccn.errors import DataError
from lightning_ccn.studies.comparison.cell import RESULT, environment
from lightning_ccn.studies.simulation.traffic import CHUNK, Traffic

SCORES = ["page_id", "item_id", "probability"]  # columns that `ccn predict` writes


@dataclass(frozen=True)
class Run:
    """A run folder of `ccn fit`, and the system that it trained.

    Attributes:
        system: its name here; runs of one name are pooled.
        folder: with config.yaml and checkpoints/last.ckpt.
    """

    system: str
    folder: Path

    @property
    def checkpoint(self) -> Path:
        """Of the run's end: what its metrics.json is about."""
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def data(self) -> Path:
        """The dataset folder that the run was trained on.

        Raises:
            DataError: the run is not whole, or of data that no world wrote.
        """
        path = self.folder / "config.yaml"
        for needed in (path, self.checkpoint):
            if not needed.exists():
                raise DataError(f"{needed}: no such file; name the folder of a run that `ccn fit` finished")
        try:
            folder = Path(yaml.safe_load(path.read_text())["data"]["folder"])
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise DataError(f"{path}: says no data.folder ({error!r}); it is not what `ccn fit` wrote") from None
        if not folder.is_dir():
            raise DataError(f"{path}: data.folder {folder} is not there; simulate where the run was trained")
        if not (folder / FILE).exists():
            raise DataError(
                f"{folder}: no world wrote these data (there is no {FILE}), so nobody knows what would be clicked; "
                "simulate runs of a folder that `ccn data world` wrote"
            )
        return folder


def runs_of_comparison(folder: Path) -> tuple[list[Run], list[Path]]:
    """The reported runs in a folder of `ccn compare`, and those that are not finished yet.

    Raises:
        DataError: there is none.
    """
    cells = sorted(path for path in folder.glob("cells/*/seed*") if path.is_dir())
    done = [path for path in cells if (path / RESULT).exists()]
    if not done:
        raise DataError(f"{folder}: no finished run in cells/; name a folder that `ccn compare --output` wrote")
    return [Run(path.parent.name, path) for path in done], [path for path in cells if path not in done]


def named_runs(words: Sequence[str]) -> list[Run]:
    """Runs given as NAME=FOLDER.

    Raises:
        DataError: one is not, or stands twice.
    """
    runs = []
    for word in words:
        name, equals, folder = word.partition("=")
        if not (name and equals and folder):
            raise DataError(f"--runs: '{word}' is not NAME=FOLDER, as in sim=runs/default/20260101-000000")
        run = Run(name, Path(folder))
        if run in runs:
            raise DataError(f"--runs: '{word}' stands twice")
        runs.append(run)
    return runs


def world_of(runs: Sequence[Run]) -> tuple[World, Dataset]:
    """The world that wrote the data of all runs, and these data.

    Raises:
        DataError: a run is not whole, no world wrote its data, or the runs are of two worlds.
    """
    of_folder = {run.data: run for run in reversed(runs)}  # the first run of each
    configs = {folder: WorldConfig.load(folder) for folder in of_folder}
    first = runs[0].data
    for folder, config in configs.items():
        here, there = asdict(configs[first]), asdict(config)
        odd = [f"{name} {here[name]} and {there[name]}" for name in here if here[name] != there[name]]
        if odd:
            raise DataError(
                f"{of_folder[first].folder} and {of_folder[folder].folder} are of two worlds ({', '.join(odd)}): "
                "simulate those of one world together"
            )
    dataset, world = Dataset.open(first), World(configs[first])
    if dataset.schema != world.schema or not np.array_equal(read_items(dataset)["category"], world.catalogue.category):
        raise DataError(f"{first}: world.yaml is not of the world that wrote this folder; write the folder again")
    return world, dataset


def predict(run: Run, data: Path, scratch: Path, worker: int) -> Path:
    """ScoreCollector candidates by `ccn predict`, in a process of its own with one thread.

    Args:
        run: whose model.
        data: the folder that `Traffic.write` wrote.
        scratch: a folder that is nobody else's.
        worker: number of this work, which chooses its GPU.

    Returns:
        The Parquet file, for `read_scores`.

    Raises:
        DataError: it failed; with what it said.
    """
    options = [
        *("--config", str(run.folder / "config.yaml"), "--ckpt_path", str(run.checkpoint), "--data.folder", str(data)),
        # in the order of the folder, a chunk a batch, whatever the run was trained with
        *("--data.batch_pages", str(CHUNK), "--data.lanes", "1", "--data.predict_split", "test"),
        *("--trainer.devices", "1", "--trainer.num_nodes", "1", "--trainer.enable_progress_bar", "false"),
        *("--runs", str(scratch), "--experiment", "predict", "--run_id", "predict", "--wandb", "off"),
        *("--output", str(scratch / "scores")),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "lightning_ccn.cli", "predict", *options],
        env=environment(worker),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode:
        lines = done.stdout.strip().splitlines() or ["it said nothing"]
        reason = next((line for line in lines if line.startswith("ccn: error: ")), lines[-1])
        raise DataError(f"{run.folder}: ccn predict failed: {reason.removeprefix('ccn: error: ')}")
    return scratch / "scores" / "part-00000.parquet"


def read_scores(path: Path, run: Run, traffic: Traffic, data: Path) -> Iterator[np.ndarray]:
    """What `predict` wrote, a row group for each of the traffic's chunks.

    Yields:
        float32 [candidates of the chunk].

    Raises:
        DataError: a candidate's score is missing, out of order or not finite.
    """
    with open_part(path) as file:
        for group, (visits, candidates) in enumerate(traffic.chunks(data)):
            columns = file.read_row_group(group, SCORES).columns if group < file.num_row_groups else [()] * 3
            page_id, item_id, score = (np.asarray(column) for column in columns)
            same = np.array_equal(page_id, np.repeat(visits.page_id, candidates.lengths))
            if not (same and np.array_equal(item_id, candidates.values) and np.isfinite(score).all()):
                raise DataError(f"{run.folder}: ccn predict did not give every candidate of every visit a finite score")
            yield score
