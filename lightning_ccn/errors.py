"""Every error that a user can cause or mend. The message names what is wrong, where, and the remedy.

`sharding.ShardingError` is the one exception: that folder can be lifted out of this package, with its error.
"""

from __future__ import annotations


class CCNError(Exception):
    """Ends the command with exit code 2 and its message as the only line."""


class DataError(CCNError, ValueError):
    """A dataset, or a file that is to become one, is malformed; says where, what, and the remedy."""


class OptionError(CCNError, ValueError):
    """An option has a value that cannot work, or not with this data."""


class TrainingError(CCNError, RuntimeError):
    """Training cannot continue; says at which step and on which pages."""


class CellError(CCNError, RuntimeError):
    """A run of a comparison failed; names it and its log."""


class NodeError(CCNError, RuntimeError):
    """A node of a SLURM job cannot take part; says which one, and why."""


class SubmitError(CCNError, RuntimeError):
    """A job cannot be submitted; says why, and what to do."""


class Interrupted(Exception):
    """The run was asked to stop, and stopped after saving a checkpoint to continue from."""
