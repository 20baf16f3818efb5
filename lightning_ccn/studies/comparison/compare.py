"""`ccn compare`: trains the unfinished cells of a comparison, and writes its report."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from lightning_ccn.conf_files import find_conf
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.leave_out import ValueCounts
from lightning_ccn.errors import OptionError
from lightning_ccn.evaluation.metrics import metric_titles
from lightning_ccn.studies.comparison.arguments import parse
from lightning_ccn.studies.comparison.cell import Cells
from lightning_ccn.studies.comparison.entries import (
    count_chosen_parameters,
    read_entry,
    read_settings,
    read_tried,
    refuse_no_labels,
)
from lightning_ccn.studies.comparison.left_out import by_value, make_folders, refuse_other_pages, values_to_leave_out
from lightning_ccn.studies.comparison.origin import origin
from lightning_ccn.studies.comparison.processes import visible_gpus
from lightning_ccn.studies.comparison.protocol import LeftOut, Protocol, configuration, default_systems, systems_in_conf
from lightning_ccn.studies.comparison.search import Space, corners, read_spaces, write_journal
from lightning_ccn.studies.comparison.statistics import FEWEST_TO_DROP
from lightning_ccn.studies.comparison.study import Study, bounds
from lightning_ccn.studies.comparison.table import table, table_by_value
from lightning_ccn.studies.comparison.work import Work
from lightning_ccn.studies.html_report import write_page

WIDE = 400  # letters of a line that is not shown in a terminal; a table takes what it needs


def run(args: list[str]) -> int:
    """Runs `ccn compare ARGS`.

    Returns:
        The exit code, 0.

    Raises:
        DataError, OptionError, ShardingError: A system cannot run on the data with these options; nothing is trained.
        CellError: The training of some cells failed.
    """
    options, shared = parse(args)
    study, dataset, values = _study(options, shared)
    _make_output(options.output)
    refuse_other_pages(study.cells, dataset, study.protocol.left_out)
    began = time.monotonic()
    left = len(study.ready()[0])
    if left:
        if values:
            make_folders(study.cells, dataset, study.protocol.left_out, lambda line: print(line, flush=True))
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
    report = _report(study, dataset, values, options, shared, args)
    (options.output / "compare.json").write_text(json.dumps(report, indent=1) + "\n")
    write_page(report, options.output / "compare.html")
    if study.protocol.spaces:
        write_journal(
            options.output / "search.journal",
            study.protocol.spaces,
            {name: study.ended(name) for name in study.entries},
        )
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    console.print(table(report))
    if values:
        console.print(table_by_value(report))
    print(f"results: {options.output / 'compare.html'}; numbers: compare.json; runs: cells")
    return 0


def _make_output(folder: Path) -> None:
    """Makes the folder of the comparison, and shows that it can be written before anything is trained."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"--output {folder}: cannot be made ({error}); choose another folder") from None
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OptionError(f"--output {folder}: cannot be written ({error.strerror}); choose another folder") from None


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def check(args: list[str]) -> tuple[Path, int]:
    """Checks what `run` checks before it trains.

    Returns:
        The folder of the comparison, and the number of cells that can be trained now.

    Raises:
        DataError, OptionError, ShardingError: `run` would raise them too.
    """
    options, shared = parse(args)
    study, *_ = _study(options, shared)
    return options.output, len(study.ready()[0])


def _study(options: argparse.Namespace, shared: Sequence[str]) -> tuple[Study, Dataset, dict[int, ValueCounts]]:
    """The comparison that the options describe, after a check of every system's options against the data.

    Returns:
        The comparison, the data, and the counts of each value to leave out; without --leave_out there is none.
    """
    configs = {configuration(system).stem: configuration(system) for system in options.systems}
    for config in configs.values():
        if not find_conf(config).exists():
            raise OptionError(f"--systems: there is no {config}; conf/model has {', '.join(default_systems())}")
    protocol = Protocol(
        seeds=tuple(range(options.first_seed, options.first_seed + options.seeds)),
        trials=options.trials,
        spaces=_spaces(options, configs),
        finalists=options.finalists,
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
            read_tried([*of_system, *given], f"{source}, which tries {', '.join(given)} for {system}")
    assert dataset is not None
    if protocol.spaces:
        refuse_no_labels(dataset)
    values = values_to_leave_out(dataset, options.leave_out) if options.leave_out is not None else {}
    protocol = replace(protocol, left_out=tuple(LeftOut(options.leave_out, value) for value in values))
    return Study(protocol, entries, Cells(options.output / "cells", shared, configs)), dataset, values


def _spaces(options: argparse.Namespace, configs: Mapping[str, Path]) -> dict[str, Space]:
    """The space of each system; empty if nothing is searched."""
    if options.trials < 2 or options.settings_from:
        return {}
    return read_spaces(find_conf(options.space), list(configs), systems_in_conf())


def _report(
    study: Study,
    dataset: Dataset,
    values: Mapping[int, ValueCounts],
    options: argparse.Namespace,
    shared: Sequence[str],
    args: Sequence[str],
) -> dict[str, Any]:
    """Content of compare.json."""
    count_chosen_parameters(study, shared)
    protocol = study.protocol
    if values:
        results = by_value(study, options.baseline, dataset, values)
    else:
        systems = study.systems(options.baseline)
        results = {"bounds": bounds(systems), "systems": systems, "steps": study.steps(systems)}
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
        "protocol": {
            "seeds": list(protocol.seeds),
            "dropped": 2 if len(protocol.seeds) >= FEWEST_TO_DROP and not values else 0,
            "trials": protocol.trials,
            "finalists": protocol.finalists,
            "space": str(options.space),
            "settings_from": str(options.settings_from) if options.settings_from else None,
            "search_share": protocol.search_share,
            "baseline": options.baseline,
            "options": list(shared),
        },
        "metrics": metric_titles(),
        **results,
        "sensitivity": study.sensitivity(),
    }


def _clock(began: float) -> str:
    seconds = int(time.monotonic() - began)
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
