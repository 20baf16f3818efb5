"""From a checkpoint to a package that is served without torch."""
