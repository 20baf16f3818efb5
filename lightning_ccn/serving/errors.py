"""What a caller of the scorer can do wrong, and what can be wrong with a package."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_ccn.errors import CCNError


class RequestError(CCNError, ValueError):
    """A request cannot be scored; the message names the field, the value and what would fit."""


class PackageError(CCNError, ValueError):
    """A folder is not a package that this version can serve; the message names the file and the remedy."""


def check_list(values: Any, where: str, of: str) -> None:
    """Checks that a field of a request is a list.

    Args:
        values: The field.
        where: Its name.
        of: What it is a list of, for the message.

    Raises:
        RequestError: It is none.
    """
    if values is None:
        raise RequestError(f"{where}: null is not a list of {of}; give one, or leave the field out")
    if not isinstance(values, Sequence | np.ndarray) or isinstance(values, str | bytes):
        raise RequestError(f"{where}: {short_text(values)} is not a list of {of}")
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise RequestError(f"{where}: an array of {values.ndim} dimensions is not a list of {of}")


_SHORT = reprlib.Repr()  # does not look into what is nested deeply, nor write what is long
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxlong, _SHORT.maxother = 3, 80, 80, 80


def short_text(value: Any) -> str:
    """A value for a message, which is cut if it is long."""
    text = _SHORT.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
