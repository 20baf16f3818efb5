"""The one error of this package."""


class ShardingError(ValueError):
    """What was asked cannot work, or a checkpoint does not fit. The message names the thing at fault and the remedy."""
