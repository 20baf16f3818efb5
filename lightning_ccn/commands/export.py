"""`ccn export`: from a checkpoint to a package that is served without torch."""

from __future__ import annotations

from pathlib import Path

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.errors import OptionError
from lightning_ccn.export.export import export
from lightning_ccn.serving.manifest import Manifest
from lightning_ccn.training.given_checkpoint import OPTIONS, find_checkpoint, run_of
from lightning_ccn.training.parsers import CommandParser
from lightning_ccn.training.words import given

FOLDER, PACKAGE = "data.folder", "package"


def run(args: list[str]) -> int:
    """Writes a package, and prints what was measured.

    Returns:
        The exit code.

    Raises:
        OptionError, DataError, ShardingError: The checkpoint cannot be exported; the message says why.
    """
    parser = CommandParser(
        prog="ccn export", description="Write a package of a checkpoint, which is served without torch."
    )
    parser.add_argument("--ckpt_path", required=True, help="Checkpoint, or the folder of its run.")
    parser.add_argument(f"--{FOLDER}", help="Dataset folder with the items to be served (default: the run's own).")
    parser.add_argument("--output", type=Path | None, help="Folder of the package (default: package/ of the run).")
    parser.add_function_arguments(export, skip={"checkpoint", "dataset", "output"})
    options = parser.parse_args(args).as_dict()
    checkpoint = find_checkpoint(options.pop("ckpt_path"))
    folder = options.pop("data")["folder"] or _folder_of_run(checkpoint)
    output = options.pop("output") or _run(checkpoint, "--output") / PACKAGE
    exported = export(checkpoint, Dataset.open(folder), output, **options)
    print(f"The package is in {output}.")
    print(_words(exported.manifest))
    if exported.comparison is not None:
        print(f"{options['against']} -> {output}:\n{exported.comparison}")
    return 0


def _folder_of_run(checkpoint: Path) -> str:
    run = _run(checkpoint, f"--{FOLDER}")
    folder = given(["--config", str(run / OPTIONS)], (FOLDER,)).get(FOLDER)
    if folder is None:
        raise OptionError(f"--{FOLDER}: is missing; {run / OPTIONS} does not name it")
    return str(folder)


def _run(checkpoint: Path, option: str) -> Path:
    run = run_of(checkpoint)
    if run is None:
        raise OptionError(f"{option}: is missing; {checkpoint} is not in the folder of its run, which would name it")
    return run


def _words(manifest: Manifest) -> str:
    found = manifest.measured
    if not found:
        return "It was not compared with the model (--pages 0)."
    lines = [
        f"On {found['pages']:,} pages of the {found['split']} split, its probabilities differ from the model's by "
        f"{found['largest_difference']:.1g} at most."
    ]
    for kind in dict.fromkeys(("fp32", manifest.table_dtype)):
        for name in ("auc", "order_auc"):
            if name in found.get(kind, {}):
                lines.append(f"{name} with tables as {kind}: {found[kind][name]:.5f}")
    return "\n".join(lines)
