"""`ccn plan`: shows which rank would hold which table, and whether it all fits. It needs no GPU.

The plan is for the devices that `trainer.accelerator` names: on GPUs, the item tables have another lookup kernel. With
`auto`, it is for what this machine has; so plan on a login node without GPUs with `--trainer.accelerator gpu`.
"""

from __future__ import annotations

import sys

from lightning.pytorch.cli import LightningArgumentParser

from lightning_ccn.commands.step_cost import describe_steps
from lightning_ccn.sharding.estimate import HEADROOM
from lightning_ccn.training.preflight import GPU_MEMORY, RANKS_OF_A_NODE, Preflight


class PlanCLI(Preflight):
    """The options of `ccn fit`, so that the plan is that of the run, and a description of the machine."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options that describe the machine."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--world_size", type=int, default=1, help="number of ranks")
        parser.add_argument("--gpu_memory", type=float, default=GPU_MEMORY, help="memory of one rank, GiB")
        parser.add_argument(
            "--headroom", type=float, default=HEADROOM, help="share of it for layers, activations and communication"
        )


def run(args: list[str]) -> int:
    """Prints the plan, and whether it fits.

    Returns:
        The exit code: 0, or 1 if the tables do not fit.

    Raises:
        DataError, OptionError, ShardingError: The configuration cannot run on any machine.
    """
    cli = PlanCLI(
        args,
        run=False,
        seed_everything_default=False,
        parser_kwargs={
            "prog": "ccn plan",
            "description": "Show which rank would hold which table, and whether the tables fit, for `ccn fit`.",
        },
    )
    options, device_type = cli.options, cli.device_type
    answer = cli.fits(options.world_size, options.gpu_memory, device_type, options.headroom)
    print(answer, file=sys.stdout if answer.fits else sys.stderr)
    print(describe_steps(cli, options.world_size, device_type, options.gpu_memory))
    if cli.strategy.automatic == "torchrec":
        memory = f" and {options.gpu_memory:g} GiB on a GPU" if device_type == "cuda" else ""
        print(
            f"placed by TorchRec's planner for {RANKS_OF_A_NODE} ranks on a node{memory}; a run "
            "asks its own machines, so its plan can differ"
        )
    if options.trainer.accelerator == "auto":
        print(f"planned for {device_type}, which this machine has; --trainer.accelerator gpu or cpu names another")
    return 0 if answer.fits else 1
