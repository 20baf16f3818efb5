"""`ccn simulate`: trained systems rank items for new visits of a synthetic world, which draws clicks and purchases."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console

from lightning_ccn.errors import DataError, OneLineParser
from lightning_ccn.studies.comparison.origin import origin
from lightning_ccn.studies.comparison.processes import visible_gpus
from lightning_ccn.studies.simulation.earlier import FILE, entries, refuse_another
from lightning_ccn.studies.simulation.lift import METRICS, Outcome, lift
from lightning_ccn.studies.simulation.log_share import log_shares
from lightning_ccn.studies.simulation.ranking import WAYS, Ranking
from lightning_ccn.studies.simulation.reference import REFERENCES, reference_scores
from lightning_ccn.studies.simulation.report import PAPER_LIFT, tables
from lightning_ccn.studies.simulation.runs import (
    TrainedRun,
    named_runs,
    predict,
    read_scores,
    refuse_without_order_head,
    runs_of_comparison,
    world_of,
)
from lightning_ccn.studies.simulation.traffic import Traffic

DESCRIPTION = """\
Lets trained systems rank items for the same new visits of a synthetic world's test promotion. The world draws clicks
and purchases with its known probabilities; the random draw of a (visit, item) is the same for all systems. Prints the
lifts over a baseline as in the paper's Tables 3 and 4, and how many items of the trigger's category each system shows.
Several runs of a system are pooled.
"""


def run(args: list[str]) -> int:
    """Runs `ccn simulate ARGS`.

    Returns:
        The exit code, 0.

    Raises:
        DataError: A run is incomplete, the runs have different worlds, there is no run of the baseline, a run without
            an order head is to be ranked by orders, or the folder has another simulation.
    """
    options = _parse(args)
    began = time.monotonic()
    runs = named_runs(options.runs) if options.runs else _finished(options.comparison)
    names = sorted({run.system for run in runs})
    if options.baseline not in names:
        raise DataError(f"--baseline: no run of '{options.baseline}', only of {', '.join(names)}")
    if taken := set(names) & set(REFERENCES):
        raise DataError(f"--runs: '{min(taken)}' is the name of a reference ranking; choose another")
    if odd := [name for name in names if ":" in name]:
        raise DataError(
            f"--runs: the name '{odd[0]}' has a colon, as that of a system ranked by orders; choose another"
        )
    rankings = [Ranking(by, **options.mix) for by in options.rank_by]
    if any(ranking.needs_orders for ranking in rankings):
        refuse_without_order_head(runs)
    world, log = world_of(runs)
    first_runs = {run.system: run for run in reversed(runs)}  # the first run of each system
    names.sort(key=lambda name: first_runs[name].order)
    titles = {name: first_runs[name].title for name in names} | REFERENCES
    traffic = Traffic(world, visits=options.visits, candidates=options.candidates, seed=options.seed)
    folder = _make(options.output or options.comparison)
    drawn = {
        "world": asdict(world.config),
        "visits": options.visits,
        "candidates": options.candidates,
        "seed": options.seed,
    }
    wanted = entries({name: [run.folder for run in runs if run.system == name] for name in names}, rankings)
    baseline = rankings[0].key(options.baseline)
    refuse_another(folder, drawn, wanted, baseline)
    print(f"{len(runs)} models rank {options.candidates} candidates of each of {options.visits:,} visits", flush=True)
    with TemporaryDirectory(prefix="ccn-simulate-") as scratch:
        data = Path(scratch) / "visits"
        traffic.write(data, log)
        served = _serve(runs, traffic, data, options.jobs, rankings)
        outcomes: dict[str, Outcome] = {}
        ranked: dict[str, tuple[str, Ranking]] = {}  # the system, or reference, and the ranking of each outcome
        for ranking in rankings:
            for name in names:
                of_runs = [served[run][ranking] for run in runs if run.system == name]
                outcomes[ranking.key(name)] = Outcome(of_runs, trained=True)
                ranked[ranking.key(name)] = (name, ranking)
        for name in REFERENCES:
            for ranking in rankings if name != "recommender" else [Ranking("click")]:  # which has one order
                scores = (reference_scores(name, world, *chunk, ranking) for chunk in traffic.chunks(data))
                outcomes[ranking.key(name)] = Outcome([traffic.serve(data, scores)], trained=False)
                ranked[ranking.key(name)] = (name, ranking)
    report = {
        **origin("simulate", args),
        "minutes": (time.monotonic() - began) / 60,
        "dataset": str(log.folder),
        **drawn,
        "promotion": traffic.window.promotion,
        "unseen": world.config.unseen_test,
        "users": len(traffic.users),
        "baseline": {"name": baseline, "title": rankings[0].title(titles[options.baseline])},
        "log": log_shares(log, world.catalogue.category),
        "metrics": {name: asdict(metric) for name, metric in METRICS.items()},
        "systems": [
            {"name": key, "title": ranking.title(titles[name]), "ranked": asdict(ranking)}
            | _system(outcomes[key], outcomes[baseline], [run.folder for run in runs if run.system == name])
            # the paper's systems are ranked by clicks, as far as it says
            | {"paper_lift": {table: lifts[key] for table, lifts in PAPER_LIFT.items() if key in lifts}}
            for key, (name, ranking) in ranked.items()
        ],
    }
    (folder / FILE).write_text(json.dumps(report, indent=1) + "\n")
    console = Console(width=None if sys.stdout.isatty() else 240, markup=False)
    for table in tables(report):
        console.print(table)
    print(f"results: {folder / FILE}, with the values of every run")
    return 0


def _parse(args: list[str]) -> argparse.Namespace:
    parser = OneLineParser(
        prog="ccn simulate",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    models = parser.add_mutually_exclusive_group(required=True)
    models.add_argument(
        "--comparison", type=Path, metavar="FOLDER", help="folder of `ccn compare`; all its systems are simulated"
    )
    models.add_argument(
        "--runs", nargs="+", metavar="NAME=FOLDER", help="run folders of `ccn fit`; runs with the same name are pooled"
    )
    parser.add_argument(
        "--baseline", default="sim", metavar="NAME", help="system over which lifts are reported; default: %(default)s"
    )
    parser.add_argument("--visits", type=int, default=20_000, help="number of visits; default: %(default)s")
    parser.add_argument(
        "--candidates",
        type=int,
        default=60,
        help="items to rank per visit; the page shows the best 8 to 20 (in the default world); default: %(default)s",
    )
    parser.add_argument(
        "--rank_by",
        nargs="+",
        choices=WAYS,
        default=["click"],
        help="what candidates are ranked by: p(click), p(order), or p(click)^a p(order)^(1 - a); several rank each "
        "system in each way, and the baseline is ranked in the first; default: click",
    )
    parser.add_argument(
        "--click_share", type=float, metavar="A", help=f"the a of the mix; default: {Ranking.click_share:g}"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the visits; default: %(default)s")
    parser.add_argument(
        "--jobs", type=int, help="models that score at a time; default: one per GPU, or one per CPU core"
    )
    parser.add_argument("--output", type=Path, help="folder of simulate.json; default: the comparison's")
    options = parser.parse_args(args)
    if options.runs and not options.output:
        parser.error("--runs needs --output")
    if options.jobs is not None and options.jobs < 1:
        parser.error("--jobs must be 1 or more")
    options.mix = {} if options.click_share is None else {"click_share": options.click_share}
    if options.mix and not 0 < options.click_share < 1:
        parser.error(f"--click_share is {options.click_share:g}: it must be between 0 and 1")
    if options.mix and "mix" not in options.rank_by:
        parser.error("--click_share: only a mix has it; add --rank_by mix, or leave it out")
    options.rank_by = list(dict.fromkeys(options.rank_by))
    options.jobs = options.jobs or len(visible_gpus()) or len(os.sched_getaffinity(0))
    return options


def _finished(comparison: Path) -> list[TrainedRun]:
    runs, unfinished = runs_of_comparison(comparison)
    for path in unfinished:
        print(f"left out because it is not finished: {path}", flush=True)
    return runs


def _make(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--output {folder}: cannot be made ({error}); choose another folder") from None
    return folder


def _serve(
    runs: Sequence[TrainedRun], traffic: Traffic, data: Path, jobs: int, rankings: Sequence[Ranking]
) -> dict[TrainedRun, dict[Ranking, np.ndarray]]:
    """The counts under each run's model, ranked in each way, see `Traffic.serve`."""

    def serve(number: int, run: TrainedRun) -> dict[Ranking, np.ndarray]:
        with TemporaryDirectory(prefix="ccn-simulate-") as scratch:
            path = predict(run, data, Path(scratch), number)
            counts = {
                ranking: traffic.serve(data, read_scores(path, run, traffic, data, ranking)) for ranking in rankings
            }
        print(f"{run.system}: {run.folder}", flush=True)
        return counts

    with ThreadPoolExecutor(jobs) as pool:
        futures = {run: pool.submit(serve, number, run) for number, run in enumerate(runs)}
        try:
            for future in wait(futures.values(), return_when=FIRST_EXCEPTION).done:
                future.result()
        except BaseException:  # Ctrl-C too: start no other model
            pool.shutdown(cancel_futures=True)
            raise
    return {run: future.result() for run, future in futures.items()}


def _system(outcome: Outcome, baseline: Outcome, folders: Sequence[Path]) -> dict[str, Any]:
    """The results in a system's entry of simulate.json; the baseline's `lift` is null."""
    lifts = {key: lift(outcome, baseline, metric) for key, metric in METRICS.items()}
    return {
        "trained": outcome.trained,
        "runs": [{"folder": str(folder), "values": outcome.values(at)} for at, folder in enumerate(folders)],
        "values": outcome.values(),
        "lift": None if outcome is baseline else {key: found and asdict(found) for key, found in lifts.items()},
    }
