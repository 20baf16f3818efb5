"""`ccn compare`: trains the unfinished cells of a comparison, and writes its report."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lightning_ccn.conf_files import find_conf
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.places import on_disk
from lightning_ccn.errors import OneLineParser, OptionError
from lightning_ccn.evaluation.metrics import metric_titles
from lightning_ccn.studies.comparison.cell import Cells, visible_gpus
from lightning_ccn.studies.comparison.entries import (
    count_chosen_parameters,
    read_entry,
    read_settings,
    refuse_no_labels,
)
from lightning_ccn.studies.comparison.origin import origin
from lightning_ccn.studies.comparison.protocol import Protocol, configuration, default_systems
from lightning_ccn.studies.comparison.search import Space, corners, read_spaces, write_journal
from lightning_ccn.studies.comparison.statistics import FEWEST_TO_DROP
from lightning_ccn.studies.comparison.study import Study, bounds
from lightning_ccn.studies.comparison.table import table
from lightning_ccn.studies.comparison.work import Work
from lightning_ccn.studies.html_report import write_page

DESCRIPTION = """\
Trains systems x seeds on one dataset, and compares the systems as in the paper's Table 2. All other options are
options of `ccn fit`; they apply to every system. Finished runs in --output are not trained again. Several commands,
also on several machines, can work on the same --output at the same time: they share the work.
"""
QUICK = {"seeds": 1, "trials": 1, "sensitivity_seeds": 0}
DEFAULT_BASELINE = "sim"  # a comparison without this system reports no differences
SPACE = "conf/search.yaml"
EXPERIMENT = "conf/experiment/default.yaml"  # the first configuration of every cell
OF_A_SEED = ("--seed_everything", "--data.seed")
OF_A_SYSTEM = ("--model.system", "--model.system.class_path")  # an option beats the systems' YAML files


def run(args: list[str]) -> int:
    """Runs `ccn compare ARGS`.

    Returns:
        The exit code, 0.

    Raises:
        DataError, OptionError, ShardingError: A system cannot run on the data with these options; nothing is trained.
        CellError: The training of some cells failed.
    """
    options, shared = _parse(args)
    study, dataset = _study(options, shared)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"--output {options.output}: cannot be made ({error}); choose another folder") from None
    began = time.monotonic()
    left = len(study.ready()[0])
    if left:
        jobs = options.jobs or len(visible_gpus()) or len(os.sched_getaffinity(0))
        print(f"cells to train: at least {left}, {jobs} at a time; logs are in {options.output}/cells", flush=True)
        before = signal.signal(signal.SIGTERM, _interrupt)  # like Ctrl-C: it ends the cells' processes too
        try:
            Work(study.cells, study.ready, lambda line: print(f"{_clock(began)}  {line}", flush=True), study).run(jobs)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command trains the remaining cells") from None
        finally:
            signal.signal(signal.SIGTERM, before)
    if options.only_train:
        return 0
    report = _report(study, dataset, options, shared, args)
    (options.output / "compare.json").write_text(json.dumps(report, indent=1) + "\n")
    write_page(report, options.output / "compare.html")
    if study.protocol.spaces:
        write_journal(
            options.output / "search.journal",
            study.protocol.spaces,
            {name: study.ended(name) for name in study.entries},
        )
    Console(width=None if sys.stdout.isatty() else 240).print(table(report))
    print(f"results: {options.output / 'compare.html'}; numbers: compare.json; runs: cells")
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def check(args: list[str]) -> tuple[Path, int]:
    """Checks what `run` checks before it trains.

    Returns:
        The folder of the comparison, and the number of cells that can be trained now.

    Raises:
        DataError, OptionError, ShardingError: `run` would raise them too.
    """
    options, shared = _parse(args)
    study, _ = _study(options, shared)
    return options.output, len(study.ready()[0])


def _study(options: argparse.Namespace, shared: Sequence[str]) -> tuple[Study, Dataset]:
    """The comparison that the options describe, after a check of every system's options against the data."""
    configs = {configuration(system).stem: configuration(system) for system in options.systems}
    for config in configs.values():
        if not find_conf(config).exists():
            raise OptionError(f"--systems: there is no {config}; conf/model has {', '.join(default_systems())}")
    protocol = Protocol(
        seeds=tuple(range(options.first_seed, options.first_seed + options.seeds)),
        trials=options.trials,
        spaces=_spaces(options, configs),
        search_share=options.search_share,
        sensitivity_seeds=options.sensitivity_seeds,
        chosen=read_settings(options.settings_from, list(configs)) if options.settings_from else {},
    )
    print("checking every system's options against the data", flush=True)
    entries, dataset = {}, None
    for system, config in configs.items():
        of_system = [*shared, "--config", str(config)]
        entries[system], dataset = read_entry(of_system, f"{config} or the options that all systems share")
        tried = [protocol.chosen[system]] if system in protocol.chosen else corners(protocol.spaces.get(system, {}))
        source = f"--settings_from {options.settings_from}" if system in protocol.chosen else f"--space {options.space}"
        for settings in tried:
            given = entries[system].rates.with_settings(settings)
            read_entry([*of_system, *given], f"{source}, which tries {', '.join(given)} for {system}")
    assert dataset is not None
    if protocol.spaces:
        refuse_no_labels(dataset)
    return Study(protocol, entries, Cells(options.output / "cells", shared, configs)), dataset


def _spaces(options: argparse.Namespace, configs: Mapping[str, Path]) -> dict[str, Space]:
    """The space of each system; empty if nothing is searched."""
    if options.trials < 2 or options.settings_from:
        return {}
    return read_spaces(find_conf(options.space), list(configs), default_systems())


def names(text: str) -> list[str]:
    """The names in a comma-separated list.

    Raises:
        ValueError: There is none.
    """
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise ValueError("no name")
    return found


def _parse(args: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options of `ccn compare`, and the options of `ccn fit` that all cells share."""
    systems = default_systems()
    parser = OneLineParser(
        prog="ccn compare",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the comparison")
    parser.add_argument(
        "--systems",
        type=names,
        default=systems,
        metavar="NAMES",
        help="names of files in conf/model or paths of YAML files, comma-separated; default: " + ",".join(systems),
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=5,
        help="runs of each system; with 5 or more, means leave out the best and the worst run; default: %(default)s",
    )
    parser.add_argument(
        "--first_seed", type=int, default=101, help="the other seeds count up from it; default: %(default)s"
    )
    parser.add_argument(
        "--trials",
        type=int,
        default=12,
        help="runs of each system with other settings; it uses those with the best AUC on the validation split; the "
        "first trial is its configuration as it is; 1: nothing is searched; default: %(default)s",
    )
    parser.add_argument(
        "--space", type=Path, default=Path(SPACE), metavar="FILE", help="what the trials change; default: %(default)s"
    )
    parser.add_argument(
        "--settings_from", type=Path, metavar="FOLDER", help="use the settings that an earlier comparison has chosen"
    )
    parser.add_argument(
        "--search_share",
        type=float,
        default=1.0,
        help="fraction of the training batches used in the trials and the sensitivity analysis",
    )
    parser.add_argument(
        "--sensitivity_seeds",
        type=int,
        default=1,
        help="runs of CCN for each value of lambda, tau and xi; 0 skips this analysis; default: %(default)s",
    )
    parser.add_argument("--quick", action="store_true", help="one seed, no trials, no sensitivity runs")
    parser.add_argument(
        "--baseline",
        default=DEFAULT_BASELINE,
        metavar="NAME",
        help="system to which differences are reported; default: %(default)s",
    )
    parser.add_argument("--jobs", type=int, help="cells to train at a time; default: one per GPU, or one per CPU core")
    parser.add_argument("--only_train", action="store_true", help="train, but write no report")
    if "--quick" in args:
        parser.set_defaults(**QUICK)  # what is given beside it counts
    options, shared = parser.parse_known_args(args)
    on_disk(options.output, "checkpoints", "--output")
    for name, is_valid, range_ in (
        ("seeds", options.seeds >= 1, "1 or more"),
        ("sensitivity_seeds", options.sensitivity_seeds >= 0, "0 or more"),
        ("search_share", 0 < options.search_share <= 1, "above 0 and at most 1"),
        ("trials", options.trials >= 1, "1 or more"),
        ("jobs", options.jobs is None or options.jobs >= 1, "1 or more"),
    ):
        if not is_valid:
            raise OptionError(f"--{name} {getattr(options, name)}: must be {range_}")
    compared = [configuration(system).stem for system in options.systems]
    if twice := {name for name in compared if compared.count(name) > 1}:
        raise OptionError(f"--systems: {min(twice)} is given twice; a system's name is the name of its file")
    if options.baseline not in (*compared, DEFAULT_BASELINE):
        raise OptionError(f"--baseline {options.baseline}: not one of the systems: {', '.join(compared)}")
    if named := next((word for word in shared if word.partition("=")[0] in OF_A_SYSTEM), None):
        raise OptionError(f"{named}: would make all systems the same; name the systems to compare with --systems")
    if named := next((word for word in shared if word.partition("=")[0] in OF_A_SEED), None):
        raise OptionError(f"{named}: every run has its own seed; choose them with --first_seed and --seeds")
    return options, ["--config", EXPERIMENT, *shared]


def _report(
    study: Study, dataset: Dataset, options: argparse.Namespace, shared: Sequence[str], args: Sequence[str]
) -> dict[str, Any]:
    """Content of compare.json."""
    count_chosen_parameters(study, shared)
    protocol, systems = study.protocol, study.systems(options.baseline)
    return {
        **origin("compare", args),
        "minutes": study.minutes(),
        "quick": options.quick,
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
            "trials": protocol.trials,
            "space": str(options.space),
            "settings_from": str(options.settings_from) if options.settings_from else None,
            "search_share": protocol.search_share,
            "baseline": options.baseline,
            "options": list(shared),
        },
        "metrics": metric_titles(),
        "systems": systems,
        "sensitivity": study.sensitivity(),
    }


def _clock(began: float) -> str:
    seconds = int(time.monotonic() - began)
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
