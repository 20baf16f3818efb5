"""A comparison on a cluster: an array of jobs that share its cells, and then a job that makes its report."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from lightning_ccn.cluster.own_code import own_code, strings_in_words
from lightning_ccn.cluster.site import call
from lightning_ccn.cluster.snapshot import ROOT, snapshot
from lightning_ccn.conf_files import CONF, find_conf
from lightning_ccn.data.places import is_address
from lightning_ccn.training.option_checks import check_writable
from lightning_ccn.training.run_options import path_options

SCRIPT = Path("slurm/compare.sbatch")
DRY_RUN = "dry run: nothing was submitted"
WITHOUT_SLURM = "; there is no sbatch here to check the rest"
COMPARISON_PATHS = {"--output", "--settings_from", "--space"}  # options of `ccn compare` itself
CONFIGS = {"--config", "-c"}


def submit_comparison(arguments: list[str], tasks: int, sbatch_options: list[str], here: bool, dry_run: bool) -> int:
    """Checks a comparison, shows its jobs, and submits them unless in a dry run.

    Args:
        arguments: Arguments of `ccn compare`.
        tasks: Number of jobs in the array.
        sbatch_options: Options of sbatch for each of them, and for the report's job, which trains what they left over.
        here: Whether this machine has SLURM.
        dry_run: Do not submit.

    Returns:
        The exit code, 0.

    Raises:
        SubmitError: SLURM refuses. DataError, OptionError, ShardingError: `ccn compare` would refuse.
    """
    from lightning_ccn.studies.comparison.compare import check

    arguments = with_absolute_paths(arguments)
    output, cells = check(arguments)
    check_writable(output, "--output")

    def sbatch(name: str, *words: str, after: str = "") -> list[str]:
        log = output / "jobs" / (after or "%A") / f"{name}.log"
        words = ("sbatch", "--job-name=ccn-compare", *words, "--nodes=1", "--ntasks=1", *sbatch_options)
        return [*words, f"--output={log}", os.path.relpath(ROOT / SCRIPT), str(output), *([after] if after else [])]

    def report(after: str) -> list[str]:
        return sbatch("report", f"--dependency=afterany:{after}", after=after)

    array = sbatch("task-%a", f"--array=0-{tasks - 1}")
    print(f"at least {cells} cells to train, shared by {tasks} jobs")
    print(f"\n{shlex.join(array)}\n{shlex.join(report('ARRAY'))}\n", flush=True)
    if here:
        call(*array[:1], "--test-only", *array[1:])
    if dry_run:
        print(DRY_RUN if here else DRY_RUN + WITHOUT_SLURM)
        return 0
    jobs = [call(*array[:1], "--parsable", "--hold", *array[1:]).partition(";")[0]]
    folder = output / "jobs" / jobs[0]
    try:  # SLURM has given the job its id, and holds it until its folder is ready
        snapshot(folder, own_code(strings_in_words(arguments)))
        (folder / "arguments").write_text("".join(f"{word}\0" for word in arguments))
        after = report(jobs[0])
        jobs.append(call(*after[:1], "--parsable", *after[1:]).partition(";")[0])
        call("scontrol", "release", jobs[0])
    except BaseException:
        subprocess.run(["scancel", *jobs], check=False)
        raise
    print(f"submitted job {jobs[0]}, an array of {tasks}, and job {jobs[1]}, the report; results will be in {output}")
    print(f"  follow  tail -F {folder}/*.log")
    print(f"  stop    scancel {' '.join(jobs)}    to continue, repeat the command: trained cells are kept")
    return 0


def with_absolute_paths(arguments: list[str]) -> list[str]:
    """Arguments of `ccn compare` for a job that runs in its copy of the code, and reads the copy's `conf/`.

    An option's value is a path if the option's type says so. Options of a class that the user chooses (such as
    --trainer.callbacks.path) have no type here: their value is a path if it contains a slash and exists.

    >>> with_absolute_paths(["--quick", "--output=/runs/c", "--systems", "sim,/etc/own.yaml"])
    ['--quick', '--output=/runs/c', '--systems', 'sim,/etc/own.yaml']
    >>> with_absolute_paths(["--data.folder", "s3://bucket/world"])
    ['--data.folder', 's3://bucket/world']
    """
    paths = path_options() | COMPARISON_PATHS
    words, before = [], ""
    for word in arguments:
        option, equals, value = word.partition("=")
        if equals and option.startswith("-"):
            words.append(f"{option}={_absolute(option, value, paths)}")
        else:
            words.append(_absolute(before, word, paths))
        before = word
    return words


def _absolute(option: str, value: str, paths: set[str]) -> str:
    if option == "--systems":
        parts = value.split(",")
        return ",".join(_config(part) if part.endswith((".yaml", ".yml")) else part for part in parts)
    if option in CONFIGS:
        return value if value.lstrip().startswith("{") else _config(value)  # YAML may be given in place of a file
    exists = option.startswith("--") and "/" in value and Path(value).exists()
    return str(Path(value).absolute()) if (option in paths or exists) and not is_address(value) else value


def _config(value: str) -> str:
    """A YAML file's absolute path; those that come with the package keep their name `conf/...`."""
    path = find_conf(value).absolute()
    return str(Path("conf") / path.relative_to(CONF)) if path.is_relative_to(CONF) else str(path)
