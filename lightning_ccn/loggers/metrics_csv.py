"""`metrics.csv`: every logged number of a run, through every requeue and resume."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only


class MetricsCSV(CSVLogger):
    """Lightning's CSVLogger, which deletes the file of a run that goes on; this one goes on with it."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Writes the file, on rank 0."""
        if self._experiment is None:
            self._experiment = _Appender(self.log_dir)
        return self._experiment

    @rank_zero_only
    def start_from(self, step: int) -> None:
        """Drops the lines of `step` and later, which training is about to write (again, after a crash)."""
        path = Path(self.log_dir) / _Appender.NAME_METRICS_FILE
        if not path.exists():
            return
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or []
            # the last line may have been cut off in the middle
            lines = [line for line in reader if (line["step"] or "").isdigit() and int(line["step"]) < step]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(lines)


class _Appender(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if path.exists():
            with path.open(newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])
