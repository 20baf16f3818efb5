"""All errors that a user can cause or repair. Their messages name what is wrong, where, and the remedy.

The exception is `sharding.ShardingError`: the folder sharding/ can be used without the rest of this package.
"""

from __future__ import annotations

import argparse
from typing import Any, NoReturn


class CCNError(Exception):
    """Ends the command with exit code 2 and its message as the only line."""


class DataError(CCNError, ValueError):
    """A dataset, or a file to be converted to one, is malformed."""


class OptionError(CCNError, ValueError):
    """An option has a value that cannot work, or cannot work with this data."""


class TrainingError(CCNError, RuntimeError):
    """Training cannot continue; the message names the step and the pages."""


class CellError(CCNError, RuntimeError):
    """A run of a comparison failed; the message names it and its log."""


class NodeError(CCNError, RuntimeError):
    """A node of a SLURM job cannot take part; the message names the node and the cause."""


class SubmitError(CCNError, RuntimeError):
    """A job cannot be submitted; the message names the cause and the remedy."""


class Interrupted(Exception):
    """The run was asked to stop, and has stopped; a run in training has saved a checkpoint to continue from."""


class OneLineParser(argparse.ArgumentParser):
    """argparse's parser with errors of one line that begin as all others of `ccn`; argparse prints the usage too."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **kwargs})  # as in `training.parsers`

    def error(self, message: str) -> NoReturn:
        """Ends the process with exit code 2."""
        self.exit(2, f"ccn: error: {message}; `{self.prog} --help` explains\n")
