"""The error that this folder raises."""


class ShardingError(ValueError):
    """A setting cannot work, or a checkpoint does not fit; the message names the problem and the remedy."""
