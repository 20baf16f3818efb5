"""`metrics.csv`: every logged number of a run, also after it was requeued or resumed."""

from __future__ import annotations

import csv
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only

from lightning_ccn.lightning_private import AppendingWriter, ExperimentOwner


class MetricsCSV(ExperimentOwner, CSVLogger):
    """Lightning's CSVLogger, but it appends to the file of a resumed run instead of deleting it."""

    def new_experiment(self) -> AppendingWriter:
        """Opens the file."""
        return AppendingWriter(self.log_dir)

    @rank_zero_only
    def start_from(self, step: int) -> None:
        """Drops the lines of `step` and later, which training is about to write (again, after a crash)."""
        path = Path(self.log_dir) / AppendingWriter.NAME_METRICS_FILE
        if not path.exists():
            return
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or []
            # the last line may be incomplete
            lines = [line for line in reader if (line["step"] or "").isdigit() and int(line["step"]) < step]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(lines)
