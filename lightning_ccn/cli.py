"""`ccn`: finds the command, runs it, and turns errors into one line and an exit code."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import platform
import select
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path

from lightning_ccn import __version__

COMMANDS = {  # command -> the function that runs it: takes the other arguments, returns the exit code
    "fit": "lightning_ccn.training.trainer_cli:fit",
    "validate": "lightning_ccn.training.trainer_cli:validate",
    "test": "lightning_ccn.training.trainer_cli:test",
    "predict": "lightning_ccn.training.trainer_cli:predict",
    "data": "lightning_ccn.commands.data:run",
    "compare": "lightning_ccn.studies.comparison.compare:run",
    "simulate": "lightning_ccn.studies.simulation.simulate:run",
    "plan": "lightning_ccn.commands.plan:run",
    "export": "lightning_ccn.commands.export:run",
    "serve": "lightning_ccn.commands.serve:run",
    "score": "lightning_ccn.commands.score:run",
    "submit": "lightning_ccn.cluster.submit:run",
    "doctor": "lightning_ccn.doctor:main",
}

OVERVIEW = """\
usage: ccn COMMAND ...        `ccn COMMAND --help` explains each

  fit        train a model on a dataset folder, then test it:
             ccn fit --config conf/experiment/default.yaml --data.folder data/world
  validate   score the validation split with a checkpoint
  test       score the test split with a checkpoint
  predict    write the click probability of every exposed item, as Parquet
  data       make and check dataset folders: world, convert, check, heuristics
  compare    train systems x seeds, and report them side by side
  simulate   let trained systems rank pages of a synthetic world, which then clicks and buys
  plan       show which rank would hold which table, and how many ranks it takes
  export     write a package of a checkpoint, which is served without torch
  serve      answer HTTP requests with a package
  score      score files of raw candidate lists with a package
  submit     check a run, and submit it to SLURM
  doctor     check this machine's installation, and say what to do

Options come from YAML files (--config; several add up, the last one wins) and from the command line
(--model.lr 0.01); `ccn fit --print_config` shows every one with its value.

`ccn --version` names the versions; --debug with any command shows the traceback of an error.
"""

MORE = "--debug shows the traceback"
GO_ON = "--ckpt_path last continues this run from its newest checkpoint, if there is one"
LESS_MEMORY = (  # what helps when a GPU is full
    "lower data.batch_pages or model.system.dim, take more ranks (trainer.devices), or set trainer.precision to "
    "bf16-mixed; `ccn plan` shows what the tables take"
)
CUDA_FAULTS = ("CUDA error", "device-side assert", "illegal memory access")
DISK = {  # number of an OSError -> its remedy
    errno.ENOSPC: "make room there, or name another folder",
    errno.EDQUOT: "make room within your quota, or name another folder",
    errno.EROFS: "name a folder that can be written to",
    errno.EACCES: "name a folder that you may read and write",
    errno.EPERM: "name a folder that you may read and write",
    errno.EMFILE: "raise the limit of open files with `ulimit -n`, or lower data.workers",
    errno.ENFILE: "this machine has too many open files",
}
OPTIONS_BECOME_OBJECTS = ("instantiate_classes", "_set_seed")  # functions of LightningCLI
USER_ERROR = 2
STOPPED = 75  # EX_TEMPFAIL: stopped on request; the same command continues the run
SILENT = ""  # the words of a KeyboardInterrupt that another rank reports
CTRL_C = 130  # as of a process that SIGINT ended


def main(args: list[str] | None = None) -> int:
    """Runs a command.

    Returns:
        The exit code: 0; `USER_ERROR`; `STOPPED`; `CTRL_C`; 1 after another rank failed, after an error of the program
        or of the disk, or when a check found problems.
    """
    args = sys.argv[1:] if args is None else args
    # a job's log is all that is left of it, so there the traceback is always shown
    debug = "--debug" in args or os.environ.get("CCN_DEBUG", "0") != "0" or "CCN_JOB" in os.environ
    args = [word for word in args if word != "--debug"]
    name = args[0] if args else "--help"
    if name in ("-h", "--help", "help"):
        print(OVERVIEW, end="")
        return 0
    if name == "--version":
        print(_versions())
        return 0
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean `ccn {close[0]}`? " if close else ""
        return _fail(f"there is no command '{name}'; {hint}`ccn --help` lists them")
    if name == "doctor":  # runs where torch does not import, so before anything that needs it
        return _function(name)(args[1:])
    if os.environ.get("LOCAL_RANK", "0") != "0":  # Ctrl-C reaches every rank; the first speaks, and ends the others
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return (_run_light if name == "serve" else _run)(name, args[1:], debug)
    except KeyboardInterrupt as words:  # also during the imports, which take seconds
        if words.args != (SILENT,):
            print(f"ccn: interrupted{f'; {words}' if words.args else ''}", file=sys.stderr)
        return CTRL_C


def _versions() -> str:
    """This package, and the packages whose versions must fit together, one a line."""
    lines = [f"lightning_ccn {__version__}", f"python {platform.python_version()}"]
    for name in ("lightning", "torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            lines.append(f"{name} {metadata.version(name)}")
    return "\n".join(lines)


def _function(name: str) -> Callable[[list[str]], int]:
    module, _, function = COMMANDS[name].partition(":")
    found: Callable[[list[str]], int] = getattr(import_module(module), function)
    return found


def _run(name: str, args: list[str], debug: bool) -> int:
    """Runs the command; the one place where an error becomes one line and an exit code."""
    from lightning_ccn.training.quiet import hide_import_noise

    hide_import_noise()

    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from lightning_ccn.errors import CCNError, Interrupted
    from lightning_ccn.sharding import ShardingError

    try:
        code = _function(name)(args)
        sys.stdout.flush()  # here, and not at exit, where Python would complain
        return code
    except (CCNError, ShardingError) as error:
        return _ends(error, _fail(error))
    except MisconfigurationException as error:  # Lightning's, of options that do not go together
        return _ends(error, _fail(" ".join(str(error).split())))
    except Interrupted as stop:
        print(f"ccn: stopped on request, {stop}; --ckpt_path last continues this run", file=sys.stderr)
        return STOPPED
    except SIGTERMException:  # Lightning's, and a SystemExit without a code
        _fail(f"ended by SIGTERM; {GO_ON}")
        return STOPPED
    except BrokenPipeError as error:
        if not _output_is_closed():
            return _ends(error, _unforeseen(error))
        return 128 + signal.SIGPIPE  # whoever reads the output, such as `head`, has read enough
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _ends(error, _unforeseen(error))


def _run_light(name: str, args: list[str], debug: bool) -> int:
    """Runs a command where torch and Lightning may not be installed."""
    from lightning_ccn.errors import CCNError

    try:
        return _function(name)(args)
    except CCNError as error:
        return _fail(error)
    except ModuleNotFoundError as error:
        return _fail(f"{error.name} is not installed here; docs/serving.md says what `ccn {name}` needs")
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _of_the_program(error, " ".join(str(error).split()))


def _output_is_closed() -> bool:
    """Whether nobody reads the output any more; then nothing more is written to it, also at exit."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    closed = any(event & select.POLLERR for _, event in poll.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return closed


def _ends(error: Exception, code: int) -> int:
    """Makes this process end without waiting for ranks that have not failed; returns its exit code."""
    from lightning_ccn.sharding.process_group import fails

    fails(error, code)
    return code


def _unforeseen(error: Exception) -> int:
    """Says in one line what ended the command: another rank, the GPU, the disk, an option, or an error of the program.

    Returns:
        `USER_ERROR` for an option; 1 for the others, after which the same command can succeed.
    """
    import torch
    import torch.distributed as dist

    from lightning_ccn.sharding.process_group import loss_of_rank

    words = " ".join(str(error).split()) or type(error).__name__
    if loss := loss_of_rank(error):
        _fail(f"{loss}; {GO_ON}")
        return 1
    if isinstance(error, torch.OutOfMemoryError) or ("out of memory" in words and "CUDA" in words):
        _fail(f"the GPU's memory is full: {LESS_MEMORY}; {GO_ON} ({words.split('. ')[0]})")
        return 1
    if isinstance(error, dist.DistBackendError):
        _fail(f"NCCL failed on this rank: {words[:500]}; the same command after NCCL_DEBUG=INFO shows more; {MORE}")
        return 1
    if isinstance(error, RuntimeError) and any(said in words for said in CUDA_FAULTS):
        said = words.split(" CUDA kernel errors")[0]
        _fail(
            f"the GPU reports a fault, of this or an earlier operation: {said}; the same command with --debug after "
            f"CUDA_LAUNCH_BLOCKING=1 shows which; {GO_ON}"
        )
        return 1
    if isinstance(error, OSError) and error.errno in DISK:
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror or words}: {DISK[error.errno]}; {MORE}")
        return 1
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, (ValueError, TypeError)) and any(frame.name in OPTIONS_BECOME_OBJECTS for frame in frames):
        from lightning_ccn.training.parsers import in_one_line

        return _fail(f"{in_one_line(str(error)).rstrip('.')}; {MORE}")
    return _of_the_program(error, words)


def _of_the_program(error: Exception, words: str) -> int:
    """Says where an error that nobody foresaw was raised; returns the exit code."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "site-packages" not in Path(frame.filename).parts] or frames
    _fail(
        f"unexpected {type(error).__name__} at {ours[-1].filename}:{ours[-1].lineno}: {words}; this is an error of the "
        f"program, not of an option: {MORE}"
    )
    return 1


def _fail(error: object) -> int:
    print(f"ccn: error: {error}", file=sys.stderr)
    return USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
