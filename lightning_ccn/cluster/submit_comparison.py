"""A comparison on a cluster: an array of jobs that share its cells, and a job after them that makes its report."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from lightning_ccn.cluster.site import call
from lightning_ccn.cluster.snapshot import ROOT, snapshot
from lightning_ccn.training.preflight import check_writable

SCRIPT = Path("slurm/compare.sbatch")
DRY_RUN = "dry run: nothing was submitted"
WITHOUT_SLURM = "; there is no sbatch here to ask about the rest"


def submit_comparison(arguments: list[str], tasks: int, asked: list[str], here: bool, dry_run: bool) -> int:
    """Checks a comparison, shows its jobs, and unless in a dry run submits them; the exit code.

    Args:
        arguments: of `ccn compare`.
        tasks: jobs of the array.
        asked: options of sbatch for each of them, and for the report: it trains what they have left.
        here: whether there is a SLURM.
        dry_run: do not submit.

    Raises:
        SubmitError: SLURM refuses. DataError, OptionError, ShardingError: as `ccn compare`.
    """
    from lightning_ccn.studies.comparison.compare import check

    arguments = whole_paths(arguments)
    output, cells = check(arguments)
    check_writable(output)

    def sbatch(name: str, *words: str, after: str = "") -> list[str]:
        log = output / "jobs" / (after or "%A") / f"{name}.log"
        words = ("sbatch", "--job-name=ccn-compare", *words, "--nodes=1", "--ntasks=1", *asked, f"--output={log}")
        return [*words, os.path.relpath(ROOT / SCRIPT), str(output), *([after] if after else [])]

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
    try:  # SLURM has given the name, and waits for what goes by it
        snapshot(folder)
        (folder / "arguments").write_text("".join(f"{word}\0" for word in arguments))
        after = report(jobs[0])
        jobs.append(call(*after[:1], "--parsable", *after[1:]).partition(";")[0])
        call("scontrol", "release", jobs[0])
    except BaseException:
        subprocess.run(["scancel", *jobs], check=False)
        raise
    print(f"submitted job {jobs[0]}, an array of {tasks}, and job {jobs[1]}, the report; all of it will be in {output}")
    print(f"  follow  tail -F {folder}/*.log")
    print(f"  stop    scancel {' '.join(jobs)}    the same command goes on: trained cells are kept")
    return 0


def whole_paths(arguments: list[str]) -> list[str]:
    """Arguments of `ccn compare` for a job that runs in its copy of the code, with the copy's `conf/`.

    >>> whole_paths(["--quick", "--output=/runs/c", "--data.folder", "/data/world", "--systems", "sim,/etc/mine.yaml"])
    ['--quick', '--output=/runs/c', '--data.folder', '/data/world', '--systems', 'sim,/etc/mine.yaml']
    """
    words, before = [], ""
    for word in arguments:
        option, equals, value = word.partition("=")
        words.append(f"{option}={_whole(option, value)}" if equals else _whole(before, word))
        before = word
    return words


def _whole(option: str, value: str) -> str:
    if option == "--systems":
        return ",".join(
            _whole("--config", part) if part.endswith((".yaml", ".yml")) else part for part in value.split(",")
        )
    if option not in ("--output", "--data.folder", "--config"):
        return value
    path = Path(value).absolute()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT / "conf") else path)
