"""`ccn plan`: shows which rank would hold which table, and whether it all fits. It needs no GPU."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.cli import LightningArgumentParser

from lightning_ccn.data.datamodule import PageData
from lightning_ccn.module import CTRModule
from lightning_ccn.sharding import TorchRecStrategy, find_tables
from lightning_ccn.sharding.estimate import estimate
from lightning_ccn.training.trainer_cli import TrainingCLI


class PlanCLI(TrainingCLI):
    """The options of `ccn fit`, so that the plan is that of the run, and a description of the machine."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options that describe the machine."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--world_size", type=int, default=1, help="number of ranks")
        parser.add_argument("--gpu_memory", type=float, default=80.0, help="memory of one rank, GiB")
        parser.add_argument(
            "--headroom", type=float, default=0.2, help="share of it for layers, activations and communication"
        )


def run(args: list[str]) -> int:
    """Prints the plan, and whether it fits.

    Returns:
        The exit code: 0, or 1 if the tables do not fit.

    Raises:
        DataError, OptionError, ShardingError: The configuration cannot run on any machine.
    """
    with _only_warnings("lightning.pytorch"):  # the Trainer reports the devices of this machine
        cli = PlanCLI(
            CTRModule,
            PageData,
            run=False,
            args=args,
            seed_everything_default=False,
            auto_configure_optimizers=False,
            parser_kwargs={
                "prog": "ccn plan",
                "description": "Show which rank would hold which table, and whether the tables fit, for `ccn fit`.",
            },
        )
    strategy = cli.trainer.strategy
    assert isinstance(strategy, TorchRecStrategy)
    answer = estimate(
        find_tables(cli.model.new_system()),
        world_size=cli.options.world_size,
        memory_gib=cli.options.gpu_memory,
        optimizer=strategy.table_optimizer,
        plan=strategy.wanted_plan,
        headroom=cli.options.headroom,
    )
    print(answer, file=sys.stdout if answer.fits else sys.stderr)
    return 0 if answer.fits else 1


@contextmanager
def _only_warnings(logger: str) -> Iterator[None]:
    """Within the context, the logger passes on warnings and errors only."""
    level = logging.getLogger(logger).level
    logging.getLogger(logger).setLevel(logging.WARNING)
    try:
        yield
    finally:
        logging.getLogger(logger).setLevel(level)
