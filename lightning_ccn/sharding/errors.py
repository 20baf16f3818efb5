"""The one error of this package."""


class ShardingError(ValueError):
    """What was asked cannot work, or a checkpoint does not fit; the message names the fault and the remedy."""
