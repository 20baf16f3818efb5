"""For tests of hostile files: an object that shows whether a reader has run code of the file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)
