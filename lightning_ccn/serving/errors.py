"""What a caller of the scorer can do wrong, and what can be wrong with a package."""

from __future__ import annotations

from lightning_ccn.errors import CCNError


class RequestError(CCNError, ValueError):
    """A request cannot be scored; the message names the field, the value and what would fit."""


class PackageError(CCNError, ValueError):
    """A folder is not a package that this version can serve; the message names the file and the remedy."""
