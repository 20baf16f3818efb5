"""The options of `ccn compare`."""

from __future__ import annotations

import argparse
from pathlib import Path

from lightning_ccn.data.places import on_disk
from lightning_ccn.errors import OneLineParser, OptionError
from lightning_ccn.studies.comparison.protocol import FINAL_SEEDS, Protocol, configuration, default_systems

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


def names(text: str) -> list[str]:
    """The names in a comma-separated list.

    Raises:
        ValueError: There is none.
    """
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise ValueError("no name")
    return found


def parse(args: list[str]) -> tuple[argparse.Namespace, list[str]]:
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
        default=Protocol.trials,
        help="runs of each system with other settings; the first trial is its configuration as it is; 1: nothing is "
        "searched; default: %(default)s",
    )
    parser.add_argument(
        "--finalists",
        type=int,
        default=Protocol.finalists,
        help="the best trials of each system, which run with two more seeds each; it uses the settings with the best "
        "mean AUC on the validation split; 1: those of the best trial; default: %(default)s",
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
    parser.add_argument(
        "--leave_out",
        metavar="COLUMN",
        help="a profile feature, such as `scenario`: for each of its values, train on the pages of all others and test "
        "on the test pages of this one alone; trials use all pages, so all values have the same settings",
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
    if any(word.partition("=")[0] == "--leave_out" for word in args):
        parser.set_defaults(sensitivity_seeds=0)
    options, shared = parser.parse_known_args(args)
    on_disk(options.output, "checkpoints", "--output")
    for name, is_valid, range_ in (
        ("seeds", options.seeds >= 1, "1 or more"),
        ("sensitivity_seeds", options.sensitivity_seeds >= 0, "0 or more"),
        ("search_share", 0 < options.search_share <= 1, "above 0 and at most 1"),
        ("trials", options.trials >= 1, "1 or more"),
        ("finalists", options.finalists >= 1, "1 or more"),
        ("jobs", options.jobs is None or options.jobs >= 1, "1 or more"),
    ):
        if not is_valid:
            raise OptionError(f"--{name} {getattr(options, name)}: must be {range_}")
    if options.trials > 1 and options.first_seed <= max(FINAL_SEEDS):
        raise OptionError(
            f"--first_seed {options.first_seed}: the search has the seeds 0 to {max(FINAL_SEEDS)}, so its settings "
            f"would be chosen for these runs; give {max(FINAL_SEEDS) + 1} or more, or --trials 1"
        )
    if options.leave_out is not None and options.sensitivity_seeds:
        raise OptionError(
            f"--sensitivity_seeds {options.sensitivity_seeds}: its runs are tested on all values, so it does not go "
            "with --leave_out; run it as a comparison of its own"
        )
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
