"""`ccn data build` and `ccn data init`: from a raw log to a dataset folder."""

from __future__ import annotations

import sys
from collections.abc import Callable

from jsonargparse import Namespace

from lightning_ccn.data.build.build import build_log
from lightning_ccn.data.build.draft import draft
from lightning_ccn.data.places import place
from lightning_ccn.evaluation.yardstick import CLICK_RATE, write_yardstick
from lightning_ccn.training.parsers import CommandParser

BUILDS = "make a dataset folder of a raw log, as a specification in YAML says"
DRAFTS = "look at the files of a raw log, and print a first draft of its specification"


def add_commands(add: Callable[[str, Callable[[Namespace], int | None], str], CommandParser]) -> None:
    """Adds the two commands to those of `ccn data`.

    Args:
        add: Makes the parser of a command, from its name, what it does and its help.
    """
    building = add("build", _build, BUILDS)
    building.add_function_arguments(build_log, as_positional=True, skip={"say"})
    drafting = add("init", _draft, DRAFTS)
    drafting.add_function_arguments(draft, as_positional=True)


def _build(options: Namespace) -> int:
    report = build_log(**options.as_dict())
    print(report)
    for fault in report.faults:
        print(fault, file=sys.stderr)
    if report.faults:
        return 1
    if report.checked and (found := write_yardstick(place(options.folder))) is not None:
        print(f"auc of the test split by {CLICK_RATE}: {found['auc']:.4f}, which a model should beat")
    return 0


def _draft(options: Namespace) -> None:
    print(draft(**options.as_dict()), end="")
