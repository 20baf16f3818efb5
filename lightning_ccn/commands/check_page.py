"""Where `ccn data check --html` may write its page."""

from __future__ import annotations

from pathlib import Path

from lightning_ccn.data.dataset import SPLITS
from lightning_ccn.data.places import Place
from lightning_ccn.errors import OptionError
from lightning_ccn.training.option_checks import check_writable

HTML = "--html"


def check_page(path: Path, folder: Place) -> None:
    """Makes the folder of a page, before a check that may take hours.

    Args:
        path: Path of the page.
        folder: The dataset folder.

    Raises:
        OptionError: The path is not that of an HTML file, lies among the dataset's parts, or cannot be written.
    """
    if path.suffix != ".html" or path.is_dir():
        raise OptionError(f"{HTML} {path}: is not the name of an HTML file; name one that ends in .html")
    here = isinstance(folder, Path)
    if here and any(path.resolve().is_relative_to(Path(str(folder), split).resolve()) for split in SPLITS):
        raise OptionError(f"{HTML} {path}: lies among the parts of {folder}, which are data; name another place")
    check_writable(path.parent, HTML)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{HTML} {path}: {path.parent} cannot be made: {error.strerror}; name another") from None
