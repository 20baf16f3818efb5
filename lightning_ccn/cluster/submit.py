"""`ccn submit`: checks a command on the login node, submits it, and prints how to follow, stop and continue the job."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
from pathlib import Path

import yaml

from lightning_ccn.cluster.own_code import own_code, strings_in
from lightning_ccn.cluster.site import active_jobs, call, read_site, slurm_is_here, smallest_node
from lightning_ccn.cluster.snapshot import ROOT, snapshot
from lightning_ccn.cluster.submit_comparison import DRY_RUN, WITHOUT_SLURM, submit_comparison
from lightning_ccn.errors import OneLineParser, SubmitError
from lightning_ccn.training.option_checks import check_writable
from lightning_ccn.training.preflight import Preflight

SCRIPT = Path("slurm/job.sbatch")
COMMANDS = ("fit", "predict", "compare")

DESCRIPTION = """\
Checks a command, submits it to SLURM, and prints how to follow, stop and continue the job. COMMAND is `fit`, `predict`
or `compare` with its own options, except for the Trainer's nodes, devices and accelerator, which come from --nodes and
--gpus. A comparison becomes an array of --tasks jobs of one node each. slurm/site.env has the defaults.
"""


def run(args: list[str]) -> int:
    """Submits a job, or with --dry_run prints what would be submitted.

    Returns:
        The exit code, 0.

    Raises:
        SubmitError: The job cannot be submitted. DataError, OptionError, ShardingError: It could not run.
    """
    options = _parse(args)
    here = slurm_is_here()
    if not here and not options.dry_run:
        raise SubmitError("there is no sbatch here: go to your cluster's login node, or `make train` on this machine")
    node = smallest_node(options.partition) if here else None
    if options.command[0] == "compare":
        cores = 2 * options.gpus or (node and node.cores)  # a cell trains on one core, and reads on another
        each = _long_options({"gpus-per-node": options.gpus, "cpus-per-task": options.cpus or cores})
        return submit_comparison(
            options.command[1:], options.tasks, [*each, *_site_options(options)], here, options.dry_run
        )
    if node and not options.cpus:
        options.cpus = max(node.cores // max(options.gpus, 1), 1)

    preflight = Preflight(options.command)
    first = preflight.options
    experiment = options.resume.parent if options.resume else first.runs / first.experiment
    memory = float(options.gpu_memory) if options.gpus else node.memory_gib if node else None
    device_type = "cuda" if options.gpus else "cpu"  # as job_config sets the job's accelerator
    _check(preflight, options.nodes, max(options.gpus, 1), memory, device_type)
    check_writable(experiment, "--runs")
    if options.resume:
        preflight.check_resume(options.resume)

    command = _sbatch(options, experiment)
    print(f"\n{shlex.join(command)}\n", flush=True)
    if here:
        call(*command[:1], "--test-only", *command[1:])
    if options.dry_run:
        print(DRY_RUN if here else DRY_RUN + WITHOUT_SLURM)
        return 0
    job = call(*command[:1], "--parsable", "--hold", *command[1:]).partition(";")[0]
    folder = options.resume or experiment / job
    try:  # SLURM has given the job its id, and holds it until its folder is ready
        config = preflight.job_config(folder, options.nodes, options.gpus)
        snapshot(folder / "jobs" / job, own_code(strings_in(yaml.safe_load(config))))
        (folder / "jobs" / job / "config.yaml").write_text(config)
        call("scontrol", "release", job)
    except BaseException:
        subprocess.run(["scancel", job], check=False)
        raise
    print(f"submitted job {job}; its files will be in {folder}")
    print(f"  follow  tail -F {folder}/jobs/{job}/*.log    job.log: the batch script; rank-N.log: the ranks")
    if options.command[0] == "fit":
        print(f"  stop    scancel {job}    the job saves a checkpoint first")
        print(f"  resume  make train-multinode RESUME={folder}    on any number of nodes")
    else:
        print(f"  stop    scancel {job}")
    return 0


def _long_options(options: dict[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items() if value]


def _site_options(options: argparse.Namespace) -> list[str]:
    """Options of sbatch for any kind of job."""
    own = _long_options({name: getattr(options, name) for name in ("partition", "account", "time")})
    return [*own, f"--signal=B:USR1@{options.signal_seconds}", *shlex.split(options.sbatch or "")]


def _check(preflight: Preflight, nodes: int, per_node: int, memory_gib: float | None, device_type: str) -> None:
    """Checks the data, and whether the tables fit; prints the plan."""
    world_size = nodes * per_node
    preflight.check_data(world_size)
    if memory_gib is None:
        print(preflight.plan(world_size, device_type, per_node=per_node))
        return
    answer = preflight.fits(world_size, memory_gib, device_type, per_node=per_node)
    print(answer)
    if not answer.fits:
        raise SubmitError(f"the tables do not fit on {world_size} ranks of {memory_gib:g} GiB, see above")


def _parse(args: list[str]) -> argparse.Namespace:
    parser = OneLineParser(
        prog="ccn submit", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    site = read_site(ROOT / "slurm/site.env") if (ROOT / SCRIPT).exists() else {}
    parser.set_defaults(signal_seconds=site.get("SIGNAL_SECONDS"), gpu_memory=site.get("GPU_MEMORY"))
    parser.add_argument("--nodes", type=int, default=1, help="number of nodes")
    parser.add_argument(
        "--gpus", type=int, default=8, help="GPUs per node, a rank on each; 0: one rank per node, on its CPU"
    )
    parser.add_argument("--tasks", type=int, default=8, help="number of jobs that share a comparison's cells")
    for name in ("partition", "account", "time", "cpus", "sbatch"):
        parser.add_argument(f"--{name}", default=site.get(name.upper()), help=f"{name.upper()} of slurm/site.env")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="continue the run in this folder")
    parser.add_argument("--dry_run", action="store_true", help="check, and show the command, but do not submit")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    options = parser.parse_args(args)
    if not site:
        raise SubmitError(f"{ROOT / SCRIPT} is missing: ccn submit needs a clone of the repository")
    if options.nodes < 1 or options.gpus < 0 or options.tasks < 1:
        raise SubmitError(
            f"NODES={options.nodes} GPUS={options.gpus} TASKS={options.tasks}: there must be at least one node, "
            "no negative number of GPUs, and at least one task"
        )
    if options.resume:
        _continue_run(options)
    if options.command[:1] not in [[name] for name in COMMANDS]:
        raise SubmitError(f"name what to submit: ccn submit [options] {'|'.join(COMMANDS)} ...")
    return options


def _continue_run(options: argparse.Namespace) -> None:
    """Sets the command that continues a run: the run's options, then those given now."""
    run: Path = options.resume
    configs = [run / "config.yaml", *sorted(run.glob("jobs/*/config.yaml"))]
    config = next((path for path in configs if path.exists()), None)
    if config is None:
        raise SubmitError(f"RESUME={run}: no config.yaml there; name the folder of a run, RUNS/EXPERIMENT/ID")
    if slurm_is_here() and (active := active_jobs(run)):
        raise SubmitError(f"RESUME={run}: job {', '.join(active)} is still running; stop it first: scancel {active[0]}")
    command, *further = options.command or ["fit"]
    if command != "fit":
        raise SubmitError(f"--resume continues a training run; leave it out for {command}")
    last = ["--ckpt_path", "last"]  # config.yaml has the checkpoint of the run's last start
    options.command = [command, "--config", str(config), *last, *further]


def _sbatch(options: argparse.Namespace, experiment: Path) -> list[str]:
    folder = options.resume or experiment / "%j"
    own = {
        "job-name": f"ccn-{experiment.name}",
        "nodes": options.nodes,
        "ntasks-per-node": max(options.gpus, 1),
        "gpus-per-node": options.gpus,
        "cpus-per-task": options.cpus,
        "output": folder / "jobs" / "%j" / "job.log",
    }
    target = [options.command[0], str(experiment), *([options.resume.name] if options.resume else [])]
    return ["sbatch", *_long_options(own), *_site_options(options), os.path.relpath(ROOT / SCRIPT), *target]
