"""`ccn score`: scores of raw candidate lists, by an exported package."""

from __future__ import annotations

from pathlib import Path

from lightning_ccn.serving.score_files import score_files
from lightning_ccn.training.parsers import CommandParser


def run(args: list[str]) -> int:
    """Scores files of requests, and says where the scores are.

    Returns:
        The exit code.

    Raises:
        DataError, OptionError, PackageError: See `score_files`.
    """
    parser = CommandParser(prog="ccn score", description="Score files of requests with an exported package.")
    parser.add_function_arguments(score_files, as_positional=True)
    given = parser.parse_args(args)
    scored = score_files(Path(given.package), Path(given.requests), Path(given.output), given.processes)
    print(f"{scored}\nThe scores are in {given.output}.")
    return 0
