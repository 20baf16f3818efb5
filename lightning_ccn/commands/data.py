"""The commands of `ccn data`: make and check dataset folders."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from jsonargparse import Namespace
from rich.console import Console
from rich.table import Table

from lightning_ccn.commands.build import BUILDS, DRAFTS, add_commands
from lightning_ccn.commands.check_page import HTML, check_page
from lightning_ccn.data.check.check import check
from lightning_ccn.data.convert.ebnerd import convert_ebnerd
from lightning_ccn.data.convert.mind import convert_mind
from lightning_ccn.data.cut_folder import cut_folder
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.places import place
from lightning_ccn.data.world import WorldConfig, generate_world
from lightning_ccn.errors import OptionError
from lightning_ccn.evaluation.heuristics import heuristic_scores
from lightning_ccn.evaluation.metrics import CTRMetrics
from lightning_ccn.evaluation.world_bounds import world_bounds
from lightning_ccn.evaluation.yardstick import CLICK_RATE, write_yardstick
from lightning_ccn.studies.html_report import write_dataset_page
from lightning_ccn.training.parsers import CommandParser

# `ccn data convert NAME` takes the function's arguments as options, and prints what it returns.
CONVERTERS: dict[str, Callable[..., object]] = {"ebnerd": convert_ebnerd, "mind": convert_mind}

MAKES_A_WORLD = "write page views of a synthetic world with known click probabilities"
CHECKS = "check a dataset folder, and report its errors by file, row and column"
CUTS = "copy a dataset folder, with long sequences cut to what a search can ask for"
SCORES = "score the test split without a model, by click rate and by recency"
LONG_LENGTH = (
    "The largest data.long_length that OUT can be read with: as many long behaviours of each category of a page are "
    "left, the most recent ones."
)


def run(args: list[str]) -> int:
    """Runs `ccn data ARGS`.

    Returns:
        The exit code.

    Raises:
        OptionError: There is no such command or converter.
        DataError: The command failed; the message explains why.
    """
    parser, commands = CommandParser(prog="ccn data", description="Make and check dataset folders."), {}
    subcommands = parser.add_subcommands()

    def add(name: str, act: Callable[[Namespace], int | None], help: str) -> CommandParser:
        commands[name] = act
        made = CommandParser(description=help)
        subcommands.add_subcommand(name, made, help=help)
        return made

    making = add("world", _world, MAKES_A_WORLD)
    making.add_argument("folder", type=Path, help="Dataset folder to write.")
    making.add_class_arguments(WorldConfig)
    making.add_argument(
        "--cut_long_length",
        type=int | None,
        help="Cut the long sequences as `ccn data cut` does, while they are written. The world stays the same.",
    )
    for name, convert in CONVERTERS.items():
        converting = add(f"convert-{name}", _converting(convert), _about(convert))
        converting.add_function_arguments(convert, as_positional=True)
    add_commands(add)
    checking = add("check", _check, CHECKS)
    checking.add_function_arguments(check, as_positional=True)
    checking.add_argument(HTML, type=Path | None, help="Write the report as an HTML file, with distributions by day.")
    cutting = add("cut", _cut, CUTS)
    cutting.add_function_arguments(cut_folder, as_positional=True, skip={"long_length"})  # which is no position
    cutting.add_argument("--long_length", type=int, required=True, help=LONG_LENGTH)
    measuring = add("heuristics", _heuristics, SCORES)
    measuring.add_function_arguments(heuristic_scores, as_positional=True)

    names = list(dict.fromkeys(name.partition("-")[0] for name in commands))
    if not args or args[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if args[0].partition("-")[0] not in names:
        raise OptionError(_unknown("command", args[0], names, "ccn data"))
    if args[0] == "convert":  # `convert ebnerd` without a further level of parsers
        name = args[1] if len(args) > 1 else "--help"
        if name in ("-h", "--help"):
            print(_overview("convert "))
            return 0
        if name not in CONVERTERS:
            raise OptionError(_unknown("converter", name, list(CONVERTERS), "ccn data convert"))
        args = [f"convert-{name}", *args[2:]]
    options = parser.parse_args(args)
    return commands[options.subcommand](options[options.subcommand]) or 0


def _overview(prefix: str = "") -> str:
    """The commands of `ccn data`, or with `convert ` the converters."""
    about = {f"convert {name}": _about(convert) for name, convert in CONVERTERS.items()}
    if not prefix:
        about = {"world": MAKES_A_WORLD, "init": DRAFTS, "build": BUILDS, **about, "check": CHECKS, "cut": CUTS}
        about["heuristics"] = SCORES
    lines = [f"  {name:16}{words}" for name, words in about.items()]
    title = f"usage: ccn data {prefix or 'COMMAND '}...        `ccn data {prefix or 'COMMAND '}--help` explains each"
    if prefix:
        title = "usage: ccn data convert LOG SOURCE FOLDER ...        `ccn data convert LOG --help` explains each"
    return "\n".join([title, "", *lines])


def _about(convert: Callable[..., object]) -> str:
    first = (inspect.getdoc(convert) or "").partition("\n")[0].rstrip(".")
    return f"{first[:1].lower()}{first[1:]}"


def _unknown(kind: str, name: str, known: list[str], command: str) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{command}: there is no {kind} '{name}'; {hint}It has {', '.join(known)}; `{command} --help` explains"


def _converting(convert: Callable[..., object]) -> Callable[[Namespace], None]:
    def act(options: Namespace) -> None:
        report = convert(**options.as_dict())
        if report is not None:
            print(report)
        if options.get("folder") is not None:
            _yardstick(Path(options.folder))

    return act


def _world(options: Namespace) -> None:
    generate_world(**options.as_dict())  # not vars(): a Namespace stores the knob `items` under another name
    for name, value in world_bounds(Dataset.open(options.folder)).items():
        print(f"{name} of the test split: {value:.4f}")
    _yardstick(options.folder)


def _check(options: Namespace) -> int:
    given = options.as_dict()
    page = given.pop(HTML.removeprefix("--"))
    if page is not None:
        check_page(page, place(options.folder))
    report = check(**given)
    failed = bool(report.errors or report.unwritten)
    print(report, file=sys.stderr if failed else sys.stdout)
    if page is not None:
        write_dataset_page(report.plain(), page)
    if not failed and options.write_stats:
        write_yardstick(place(options.folder))
    return 1 if failed else 0


def _cut(options: Namespace) -> None:
    print(cut_folder(**options.as_dict()))


def _yardstick(folder: Path) -> None:
    found = write_yardstick(folder)
    if found is not None:
        print(f"auc of the test split by {CLICK_RATE}: {found['auc']:.4f}, which a model should beat")


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
