"""`ccn score`: scores of raw candidate lists, by an exported package."""

from __future__ import annotations

import signal
from pathlib import Path

from lightning_ccn.serving.score_files import score_files
from lightning_ccn.training.parsers import CommandParser


def run(args: list[str]) -> int:
    """Scores files of requests, and says where the scores are.

    Returns:
        The exit code.

    Raises:
        DataError, OptionError, PackageError, OSError: See `score_files`.
        KeyboardInterrupt: By Ctrl-C or SIGTERM; the processes are ended, and finished parts stay.
    """
    parser = CommandParser(prog="ccn score", description="Score files of requests with an exported package.")
    parser.add_function_arguments(score_files, as_positional=True)
    given = parser.parse_args(args)
    before = signal.signal(signal.SIGTERM, _interrupt)  # like Ctrl-C: it ends the processes too
    try:
        scored = score_files(Path(given.package), Path(given.requests), Path(given.output), given.processes)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command scores the rest") from None
    finally:
        signal.signal(signal.SIGTERM, before)
    print(f"{scored}\nThe scores are in {given.output}.")
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
