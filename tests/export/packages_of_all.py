"""Trains and exports systems, one after another in one process: what torch compiles with takes seconds to import.

    python -m tests.export.packages_of_all DATA FOLDER '[["NAME", "SYSTEM", ["--option", "value"]], ...]'

For each system, FOLDER/runs/default/NAME is the run, and FOLDER/packages/NAME the package, with its compiled graph. If
that fails, FOLDER/failed/NAME says why, and the others follow.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path

from tests.export.checkpoints import export_run, train


def main(data: Path, folder: Path, systems: list[tuple[str, str, list[str]]]) -> None:
    (folder / "failed").mkdir()
    for name, system, options in systems:
        run = folder / "runs" / "default" / name
        try:
            train(data, folder / "runs", system, "--run_id", name, "--test_after_fit", "false", *options)
            export_run(run, folder / "packages" / name, "--data.folder", str(data), "--compiled", "true")
        except Exception:
            (folder / "failed" / name).write_text(traceback.format_exc())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
