"""On the command line, an option that names another class drops the options of the class before it.

jsonargparse keeps each option that the other class has too. Then `--config conf/model/ccn.yaml --config
conf/model/tan_bounded.yaml` would be a TAN with CCN's `head_reads`, and not the one that its file describes. This is
all that `ccn` changes in jsonargparse, as of 4.53.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from jsonargparse import _typehints


def drop_options_of_the_class_before() -> None:
    """Makes jsonargparse do so, in this process."""
    _typehints.discard_init_args_on_class_path_change = _drop


def named(path: str) -> Any:
    """What a full name such as `lightning_ccn.models.CCN` stands for; the name itself if there is no such thing."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):  # the parser will say what is wrong
        return path


def _drop(parser: Any, before: Any, now: Any) -> None:
    """Takes the options from `before`, a class and its options, unless `now` is the same class, by whatever name."""
    if before and "init_args" in before and named(before["class_path"]) is not named(now["class_path"]):
        for name in [*before["init_args"].keys()]:
            del before["init_args"][name]
