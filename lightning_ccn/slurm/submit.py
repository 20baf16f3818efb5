"""`ccn submit`: checks a run on the login node, submits it, and says how to follow, stop and continue it."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import lightning_ccn
from lightning_ccn.provenance import GIT_FILE, git_state
from lightning_ccn.slurm.rehearsal import Rehearsal, check_writable
from lightning_ccn.slurm.site import SubmitError, active_jobs, call, read_site, slurm_is_here, smallest_node

ROOT = Path(lightning_ccn.__file__).parents[1]
SCRIPT = Path("slurm/job.sbatch")
COMMANDS = ("fit", "predict")

DESCRIPTION = """\
Checks a run, submits it to SLURM, and says how to follow, stop and continue it. COMMAND and its options are those of
`ccn fit` or `ccn predict`, but for the Trainer's nodes, devices and accelerator, which come from --nodes and --gpus.
What is not given here stands in slurm/site.env.
"""


def run(args: list[str]) -> int:
    """Submits, or with --dry_run says what would be submitted; the exit code.

    Raises:
        SubmitError: the job cannot be submitted. DataError, OptionError, ShardingError: it could not run.
    """
    options = _parse(args)
    here = slurm_is_here()
    if not here and not options.dry_run:
        raise SubmitError("there is no sbatch here: go to your cluster's login node, or `make train` on this machine")
    node = smallest_node(options.partition) if here else None
    if node and not options.cpus:
        options.cpus = max(node.cores // max(options.gpus, 1), 1)

    rehearsals = [Rehearsal([*options.command, *further]) for further in _each(options.each)]
    first = rehearsals[0].options
    experiment = options.resume.parent if options.resume else first.runs / first.experiment
    memory = float(options.gpu_memory) if options.gpus else node.memory_gib if node else None
    for rehearsal in rehearsals:
        _check(rehearsal, options.nodes * max(options.gpus, 1), memory)
    check_writable(experiment)

    command = _sbatch(options, experiment, len(rehearsals))
    print(f"\n{shlex.join(command)}\n", flush=True)
    if here:
        call(*command[:1], "--test-only", *command[1:])
    if options.dry_run:
        print("dry run: nothing was submitted" + ("" if here else "; there is no sbatch here to ask about the rest"))
        return 0
    job = call(*command[:1], "--parsable", "--hold", *command[1:]).partition(";")[0]
    ids = [f"{job}_{i}" for i in range(len(rehearsals))] if options.each else [job]
    runs = [options.resume or experiment / id for id in ids]
    try:  # SLURM has given the names, and waits for what goes by them
        for id, run, rehearsal in zip(ids, runs, rehearsals, strict=True):
            _fill(run / "jobs" / id, rehearsal.job_config(run, options.nodes, options.gpus))
        call("scontrol", "release", job)
    except BaseException:
        subprocess.run(["scancel", job], check=False)
        raise
    for id, run in zip(ids, runs, strict=True):
        print(f"submitted job {id}; everything of it will be in {run}")
        print(f"  follow  tail -F {run}/jobs/{id}/*.log    job.log: what becomes of the job; rank-N.log: training")
        print(f"  stop    scancel {id}    it takes a checkpoint first")
        print(f"  resume  make train-multinode RESUME={run}    on any number of nodes")
    return 0


def _check(rehearsal: Rehearsal, world_size: int, memory_gib: float | None) -> None:
    """Checkpoints, data, and whether the tables fit; prints the plan."""
    rehearsal.check_checkpoints()
    rehearsal.check_data(world_size)
    if memory_gib is None:
        print(rehearsal.plan(world_size))
        return
    answer = rehearsal.fits(world_size, memory_gib)
    print(answer)
    if not answer.fits:
        raise SubmitError(f"the tables do not fit on {world_size} ranks of {memory_gib:g} GiB, see above")


def _parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ccn submit", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    site = read_site(ROOT / "slurm/site.env") if (ROOT / SCRIPT).exists() else {}
    parser.set_defaults(signal_seconds=site.get("SIGNAL_SECONDS"), gpu_memory=site.get("GPU_MEMORY"))
    parser.add_argument("--nodes", type=int, default=1, help="number of nodes")
    parser.add_argument("--gpus", type=int, default=8, help="GPUs of each, one rank a GPU; 0: one rank on its CPU")
    for name in ("partition", "account", "time", "cpus", "sbatch"):
        parser.add_argument(f"--{name}", default=site.get(name.upper()), help=f"{name.upper()} of slurm/site.env")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on in this folder of an earlier run")
    parser.add_argument(
        "--each", type=Path, metavar="FILE", help="a job array: one run for each line, with the options on that line"
    )
    parser.add_argument("--dry_run", action="store_true", help="check, and show the command, but do not submit")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    options = parser.parse_args(args)
    if not site:
        raise SubmitError(f"{ROOT / SCRIPT} is missing: ccn submit runs from a clone of the repository")
    if options.nodes < 1 or options.gpus < 0:
        raise SubmitError(f"NODES={options.nodes} GPUS={options.gpus}: at least one node, and no less than no GPU")
    if options.resume:
        _continue(options)
    if options.command[:1] not in [[name] for name in COMMANDS]:
        raise SubmitError(f"name what to submit: ccn submit [options] {'|'.join(COMMANDS)} ...")
    return options


def _continue(options: argparse.Namespace) -> None:
    """The command that goes on in an earlier run's folder: its options, then those given now."""
    run: Path = options.resume
    configs = [run / "config.yaml", *sorted(run.glob("jobs/*/config.yaml"))]
    config = next((path for path in configs if path.exists()), None)
    if config is None:
        raise SubmitError(f"RESUME={run}: no config.yaml there; name the folder of a run, RUNS/EXPERIMENT/ID")
    if options.each:
        raise SubmitError("--resume goes on with one run, --each starts several: leave one out")
    if slurm_is_here() and (active := active_jobs(run)):
        raise SubmitError(f"RESUME={run}: job {', '.join(active)} is still at it; stop it first: scancel {active[0]}")
    command, *further = options.command or ["fit"]
    last = ["--ckpt_path", "last"] if command == "fit" else []  # config.yaml has that of the run's last start
    options.command = [command, "--config", str(config), *last, *further]


def _each(file: Path | None) -> list[list[str]]:
    """The further options of every run."""
    if file is None:
        return [[]]
    try:
        lines = [shlex.split(line, comments=True) for line in file.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise SubmitError(f"--each {file}: {error}") from None
    if not any(lines):
        raise SubmitError(f"--each {file}: no line with options")
    return [line for line in lines if line]


def _sbatch(options: argparse.Namespace, experiment: Path, runs: int) -> list[str]:
    id = "%A_%a" if options.each else "%j"
    folder = options.resume or experiment / id
    asked = {
        "job-name": f"ccn-{experiment.name}",
        "nodes": options.nodes,
        "ntasks-per-node": max(options.gpus, 1),
        "gpus-per-node": options.gpus or None,
        "cpus-per-task": options.cpus,
        "partition": options.partition,
        "account": options.account,
        "time": options.time,
        "signal": f"B:USR1@{options.signal_seconds}",
        "array": f"0-{runs - 1}" if options.each else None,
        "output": folder / "jobs" / id / "job.log",
    }
    words = [f"--{name}={value}" for name, value in asked.items() if value]
    target = [options.command[0], str(experiment), *([options.resume.name] if options.resume else [])]
    return ["sbatch", *words, *shlex.split(options.sbatch or ""), os.path.relpath(ROOT / SCRIPT), *target]


def _fill(folder: Path, config: str) -> None:
    """Makes a job's folder, with everything that the job reads but data and checkpoints."""
    code = folder / "code"
    for name in ("lightning_ccn", "slurm"):
        shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    (code / GIT_FILE).write_text(json.dumps(git_state(ROOT / "lightning_ccn"), indent=1) + "\n")
    changes = subprocess.run(["git", "-C", str(ROOT), "diff", "HEAD"], capture_output=True)
    (code / "changes.diff").write_bytes(changes.stdout)
    (folder / "config.yaml").write_text(config)
    (folder / "python").write_text(sys.executable + "\n")
