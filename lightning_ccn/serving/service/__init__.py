"""The HTTP service of a package. `Scorer` needs none of it."""
