"""`ccn`: Lightning's fit, validate, test and predict over page views, and the commands around them."""

from __future__ import annotations

import sys

OVERVIEW = """\
usage: ccn COMMAND ...        `ccn COMMAND --help` explains each

  fit        train a model on a dataset folder, then test it:
             ccn fit --config conf/experiment/default.yaml --data.folder data/world
  validate   score the validation split with a checkpoint
  test       score the test split with a checkpoint
  predict    write the click probability of every exposed item, as Parquet
  data       make and look after dataset folders: world, convert, check, yardsticks
  compare    train systems x seeds, and report them side by side
  simulate   let them rank pages of a synthetic world, which then clicks and buys
  plan       say which rank would hold which table, and on how many ranks it fits
  submit     check a run, and submit it to SLURM
  doctor     check this machine's installation, and say what to do

Options stand in YAML files (--config, several add up, the last wins) and on the command line
(--model.lr 0.01); `ccn fit --print_config` shows every one with its value.
"""

RANK_LOST = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting")  # what gloo says
TRAINER_COMMANDS = ("fit", "validate", "test", "predict")
STOPPED = 75  # EX_TEMPFAIL: asked to stop; the same command goes on
CTRL_C = 130  # as of a process that SIGINT ended


def main(args: list[str] | None = None) -> int:
    """Runs a command; the exit code is 0, 2 after an error that the user can mend, `STOPPED` or `CTRL_C`."""
    args = sys.argv[1:] if args is None else args
    command = args[0] if args else ""
    if command in ("", "-h", "--help"):
        print(OVERVIEW, end="")
        return 0
    if command == "doctor":
        from lightning_ccn.doctor import main as doctor

        return doctor(args[1:])
    from lightning_ccn.data.schema import DataError

    try:
        if command == "data":
            return _data(args[1:])
        if command == "simulate":
            return _simulate(args[1:])
        if command in TRAINER_COMMANDS or command in ("compare", "plan", "submit"):
            return _train(args)
    except DataError as error:
        return _fail(error)
    except KeyboardInterrupt as words:
        print(f"ccn: interrupted{f'; {words}' if words.args else ''}", file=sys.stderr)
        return CTRL_C
    return _fail(f"there is no command '{command}'; `ccn --help` lists them")


def _fail(error: object) -> int:
    print(f"ccn: error: {error}", file=sys.stderr)
    return 2


def _data(args: list[str]) -> int:
    from lightning_ccn.commands import run

    return run(args)


def _simulate(args: list[str]) -> int:
    from lightning_ccn.simulation.simulate import run

    return run(args)


def _train(args: list[str]) -> int:
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from lightning_ccn import planning, training
    from lightning_ccn.comparison.cell import CellError
    from lightning_ccn.module import OptionError, TrainingError
    from lightning_ccn.sharding import ShardingError
    from lightning_ccn.slurm import submit
    from lightning_ccn.slurm.interruption import Interrupted
    from lightning_ccn.slurm.job import NodeError
    from lightning_ccn.slurm.site import SubmitError

    try:
        if args[0] == "compare":
            from lightning_ccn.comparison import compare

            return compare.run(args[1:])
        if args[0] == "plan":
            return planning.run(args[1:])
        if args[0] == "submit":
            return submit.run(args[1:])
        training.run(args)
    except (CellError, NodeError, OptionError, ShardingError, SubmitError, TrainingError) as error:
        return _fail(error)
    except MisconfigurationException as error:  # Lightning's, of options that do not go together
        return _fail(" ".join(str(error).split()))
    except Interrupted as stop:
        print(f"ccn: stopped as asked, {stop}; the same run goes on with --ckpt_path last", file=sys.stderr)
        return STOPPED
    except SIGTERMException:  # Lightning's, and a SystemExit without a code
        _fail("ended by SIGTERM; this run goes on from its newest checkpoint: --ckpt_path last")
        return STOPPED
    except RuntimeError as error:
        if not any(words in str(error) for words in RANK_LOST):
            raise
        _fail("another rank ended, its own log says why; this run goes on from its newest checkpoint: --ckpt_path last")
        return 1  # not 2: the same command can succeed
    return 0


if __name__ == "__main__":
    sys.exit(main())
