"""`ccn compare`: trains what is missing of a comparison, and reports it."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from lightning_ccn import __version__
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.errors import OptionError
from lightning_ccn.provenance import git_state
from lightning_ccn.sharding import TorchRecStrategy, find_tables
from lightning_ccn.studies.comparison.cell import Cells, visible_gpus
from lightning_ccn.studies.comparison.protocol import SYSTEMS, Protocol, Rates, configuration
from lightning_ccn.studies.comparison.statistics import FEWEST_TO_DROP
from lightning_ccn.studies.comparison.study import Entry, Study, bounds
from lightning_ccn.studies.comparison.table import table
from lightning_ccn.studies.comparison.work import Work
from lightning_ccn.studies.html_report import write_page
from lightning_ccn.training.preflight import Preflight

DESCRIPTION = """\
Trains systems x seeds on one dataset, and compares them as the paper's Table 2 does. Options that are not listed here
are those of `ccn fit`, for every system alike. What is finished in --output is not trained again, and several commands
may work on one --output at once, also on several machines: they share the work.
"""
QUICK = {"seeds": 1, "scales": (1.0,), "sensitivity_seeds": 0}
DEFAULT_BASELINE = "sim"  # of a comparison without it, no differences are reported
EXPERIMENT = Path("conf/experiment/default.yaml")


def run(args: list[str]) -> int:
    """Runs `ccn compare ARGS`; the exit code.

    Raises:
        DataError, OptionError, ShardingError: a system cannot run on the data as asked; nothing is trained.
        CellError: cells did not train.
    """
    options, shared = _parse(args)
    study, dataset = _study(options, shared)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"--output {options.output}: cannot be made ({error}); name another folder") from None
    began = time.monotonic()
    left = len(study.ready()[0])
    if left:
        jobs = options.jobs or len(visible_gpus()) or len(os.sched_getaffinity(0))
        print(f"cells to train: {left} or more, {jobs} at a time; their logs are in {options.output}/cells", flush=True)
        before = signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl-C: no cell's process outlives this one
        try:
            Work(study.cells, study.ready, lambda line: print(f"{_clock(began)}  {line}", flush=True)).run(jobs)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command trains the cells that are left") from None
        finally:
            signal.signal(signal.SIGTERM, before)
    if options.only_train:
        return 0
    report = _report(study, dataset, options, shared)
    (options.output / "compare.json").write_text(json.dumps(report, indent=1) + "\n")
    write_page(report, options.output / "compare.html")
    Console(width=None if sys.stdout.isatty() else 180).print(table(report))
    print(f"Everything is in {options.output}: compare.html (open it), compare.json, cells")
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def check(args: list[str]) -> tuple[Path, int]:
    """What `run` checks before it trains: the folder of the comparison, and how many of its cells are ready to train.

    Raises:
        DataError, OptionError, ShardingError: as `run`.
    """
    options, shared = _parse(args)
    study, _ = _study(options, shared)
    return options.output, len(study.ready()[0])


def _study(options: argparse.Namespace, shared: Sequence[str]) -> tuple[Study, Dataset]:
    """The comparison that is asked for, with every system's options held against the data."""
    protocol = Protocol(
        seeds=tuple(range(options.first_seed, options.first_seed + options.seeds)),
        scales=tuple(options.scales),
        search_share=options.search_share,
        sensitivity_seeds=options.sensitivity_seeds,
        chosen=_chosen(options.scales_from) if options.scales_from else {},
    )
    configs = {configuration(system).stem: configuration(system) for system in options.systems}
    for config in configs.values():
        if not config.exists():
            known = ", ".join(sorted(path.stem for path in Path("conf/model").glob("*.yaml"))) or "none: wrong folder?"
            raise OptionError(f"--systems: there is no {config}; conf/model has {known}")
    print("checking every system's options against the data", flush=True)
    entries, dataset = {}, None
    for system, config in configs.items():
        try:
            entries[system], dataset = _rehearse([*shared, "--config", str(config)])
        except OptionError as error:
            raise OptionError(f"{config}: {error}") from None
        except SystemExit:  # the parser has said what is wrong
            print(f"ccn: this is of {config} and of what all systems share", file=sys.stderr)
            raise
    assert dataset is not None
    return Study(protocol, entries, Cells(options.output / "cells", shared, configs)), dataset


def names(text: str) -> list[str]:
    """Of an option with commas; raises ValueError where there is none."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise ValueError("no name")
    return found


def numbers(text: str) -> list[float]:
    """Of an option with commas; raises ValueError."""
    return [float(number) for number in text.split(",")]


def _parse(args: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Own options, and those of `ccn fit` that all cells share."""
    parser = argparse.ArgumentParser(
        prog="ccn compare",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the comparison")
    parser.add_argument(
        "--systems",
        type=names,
        default=list(SYSTEMS),
        metavar="NAMES",
        help="of conf/model, or YAML files, with commas; default: " + ",".join(SYSTEMS),
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=5,
        help="runs of each; of 5 or more, best and worst are left out; default: %(default)s",
    )
    parser.add_argument("--first_seed", type=int, default=101, help="the others follow it; default: %(default)s")
    parser.add_argument(
        "--scales",
        type=numbers,
        default=[0.5, 1.0, 2.0, 4.0],
        metavar="NUMBERS",
        help="learning rates to try, as multiples of the configuration's; of each system the best on the validation "
        "split is taken, a single one untried; default: 0.5,1,2,4",
    )
    parser.add_argument(
        "--scales_from", type=Path, metavar="FOLDER", help="an earlier comparison, whose choice is taken instead"
    )
    parser.add_argument(
        "--search_share", type=float, default=1.0, help="of the training batches, for these tries and the sensitivity"
    )
    parser.add_argument(
        "--sensitivity_seeds",
        type=int,
        default=1,
        help="runs of CCN for each value of lambda, tau and xi; 0: none",
    )
    parser.add_argument("--quick", action="store_true", help="one seed, nothing searched, no sensitivity")
    parser.add_argument(
        "--baseline", default=DEFAULT_BASELINE, metavar="NAME", help="of the paired differences; default: sim"
    )
    parser.add_argument("--jobs", type=int, help="cells at a time; default: one a GPU, or else one a CPU core")
    parser.add_argument("--only_train", action="store_true", help="leave the report to another call")
    options, shared = parser.parse_known_args(args)
    if options.quick:
        for name, value in QUICK.items():
            setattr(options, name, value)
    for name, fits, range_ in (
        ("seeds", options.seeds >= 1, "1 or more"),
        ("sensitivity_seeds", options.sensitivity_seeds >= 0, "0 or more"),
        ("search_share", 0 < options.search_share <= 1, "above 0, to 1"),
        ("scales", min(options.scales) > 0, "above 0"),
        ("jobs", options.jobs is None or options.jobs >= 1, "1 or more"),
    ):
        if not fits:
            raise OptionError(f"--{name} {getattr(options, name)}: must be {range_}")
    compared = [configuration(system).stem for system in options.systems]
    if twice := {name for name in compared if compared.count(name) > 1}:
        raise OptionError(f"--systems: {min(twice)} stands there twice; a system is named by its file")
    if options.baseline not in (*compared, DEFAULT_BASELINE):
        raise OptionError(f"--baseline {options.baseline}: not among the systems, which are {', '.join(compared)}")
    if EXPERIMENT.exists():  # of the checkout, as in `make train`
        shared = ["--config", str(EXPERIMENT), *shared]
    return options, shared


def _chosen(folder: Path) -> dict[str, float]:
    """Scales of the learning rates that a finished comparison chose, by system."""
    file = folder / "compare.json"
    try:
        return {system["name"]: float(system["scale"]) for system in json.loads(file.read_text())["systems"]}
    except (OSError, ValueError, KeyError) as error:
        raise OptionError(
            f"--scales_from {folder}: {file} cannot be read ({error}): name a finished comparison"
        ) from None


def _rehearse(args: Sequence[str]) -> tuple[Entry, Dataset]:
    """A system's learning rates and size, found without training it."""
    rehearsal = Preflight(["fit", *args])
    rehearsal.check_data(1)
    dataset: Dataset = rehearsal.datamodule.dataset
    strategy = rehearsal._get(rehearsal.config_init, "trainer.strategy")
    assert isinstance(strategy, TorchRecStrategy)
    system = rehearsal.model.new_system()
    tables = sum(table.rows * table.dim for table in find_tables(system))
    values = sum(parameter.numel() for parameter in system.parameters())
    return Entry(Rates(rehearsal.model.lr, strategy.table_lr), tables, values - tables), dataset


def _report(study: Study, dataset: Dataset, options: argparse.Namespace, shared: Sequence[str]) -> dict[str, Any]:
    """Content of compare.json."""
    protocol, systems = study.protocol, study.systems(options.baseline)
    return {
        "command": shlex.join(["ccn", "compare", *sys.argv[2:]]),
        "minutes": study.minutes(),
        "quick": options.quick,
        "versions": {
            "lightning_ccn": __version__,
            **{name: version(name) for name in ("torch", "torchrec", "lightning")},
        },
        "git": git_state(),
        "dataset": {
            "folder": str(dataset.folder),
            "pages": {name: split.pages for name, split in dataset.splits.items()},
            "items": sum(split.items for split in dataset.splits.values()),
            "clicks": sum(split.clicks for split in dataset.splits.values()),
        },
        "bounds": bounds(systems),
        "protocol": {
            "seeds": list(protocol.seeds),
            "dropped": 2 if len(protocol.seeds) >= FEWEST_TO_DROP else 0,
            "scales": list(protocol.scales),
            "scales_from": str(options.scales_from) if options.scales_from else None,
            "search_share": protocol.search_share,
            "baseline": options.baseline,
            "options": list(shared),
        },
        "systems": systems,
        "sensitivity": study.sensitivity(),
    }


def _clock(began: float) -> str:
    seconds = int(time.monotonic() - began)
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
