"""The commands of `ccn data`: make and check dataset folders."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from jsonargparse import Namespace
from rich.console import Console
from rich.table import Table

from lightning_ccn.data.check.check import check
from lightning_ccn.data.convert.ebnerd import convert_ebnerd
from lightning_ccn.data.convert.mind import convert_mind
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.world import WorldConfig, generate_world
from lightning_ccn.evaluation.heuristics import heuristic_scores
from lightning_ccn.evaluation.metrics import CTRMetrics
from lightning_ccn.evaluation.world_bounds import world_bounds
from lightning_ccn.training.parsers import CommandParser

# `ccn data convert NAME` takes the function's arguments as options, and prints what it returns.
CONVERTERS: dict[str, Callable[..., object]] = {"ebnerd": convert_ebnerd, "mind": convert_mind}


def run(args: list[str]) -> int:
    """Runs `ccn data ARGS`.

    Returns:
        The exit code.

    Raises:
        DataError: The command failed; the message explains why.
    """
    parser, commands = CommandParser(prog="ccn data", description="Make and check dataset folders."), {}
    subcommands = parser.add_subcommands()

    def add(name: str, act: Callable[[Namespace], int | None], help: str) -> CommandParser:
        commands[name] = act
        made = CommandParser(description=help)
        subcommands.add_subcommand(name, made, help=help)
        return made

    making = add("world", _world, "write page views of a synthetic world with known click probabilities")
    making.add_argument("folder", type=Path, help="Dataset folder to write.")
    making.add_class_arguments(WorldConfig)
    for name, convert in CONVERTERS.items():
        converting = add(f"convert-{name}", _printing(convert), "write page views of a click log")
        converting.add_function_arguments(convert, as_positional=True)
    checking = add("check", _check, "check a dataset folder, and report its errors by file, row and column")
    checking.add_function_arguments(check, as_positional=True)
    measuring = add("heuristics", _heuristics, "score the test split without a model, by click rate and by recency")
    measuring.add_function_arguments(heuristic_scores, as_positional=True)

    # accept `convert ebnerd` without a further level of parsers
    if args[:1] == ["convert"] and len(args) > 1:
        args = [f"convert-{args[1]}", *args[2:]]
    options = parser.parse_args(args)
    return commands[options.subcommand](options[options.subcommand]) or 0


def _printing(function: Callable[..., object]) -> Callable[[Namespace], None]:
    def act(options: Namespace) -> None:
        report = function(**options.as_dict())
        if report is not None:
            print(report)

    return act


def _world(options: Namespace) -> None:
    generate_world(**options.as_dict())  # not vars(): a Namespace stores the knob `items` under another name
    for name, value in world_bounds(Dataset.open(options.folder)).items():
        print(f"{name} of the test split: {value:.4f}")


def _check(options: Namespace) -> int:
    report = check(**options.as_dict())
    print(report, file=sys.stderr if report.errors else sys.stdout)
    return 1 if report.errors else 0


def _heuristics(options: Namespace) -> None:
    metrics: dict[str, CTRMetrics] = {}
    for name, scores, clicks, page_lengths in heuristic_scores(options.folder):
        update = (torch.from_numpy(scores), torch.from_numpy(clicks), torch.from_numpy(page_lengths))
        metrics.setdefault(name, CTRMetrics()).update(*update)
    table = Table("heuristic", "auc", "page_gauc")
    for name, metric in metrics.items():
        values = metric.compute()
        table.add_row(name, f"{float(values['auc']):.4f}", f"{float(values['page_gauc']):.4f}")
    Console().print(table)
