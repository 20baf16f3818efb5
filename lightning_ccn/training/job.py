"""The SLURM job that a rank belongs to."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Job:
    """This rank's place in the job that `slurm/job.sbatch` runs, and its record in the job's folder.

    Attributes:
        folder: Folder of the job, RUN/jobs/ID.
        nodes: Names of the job's nodes, in the order of their ranks.
        rank: Number of this rank.
        world_size: Number of ranks.
        ranks_per_node: Number of ranks on each node.
        master: Name of the node whose first rank the others connect to.
        port: Port on the master.
        limit: Seconds within which all ranks must have connected.
    """

    folder: Path
    nodes: list[str]
    rank: int
    world_size: int
    ranks_per_node: int
    master: str
    port: int
    limit: float

    @classmethod
    def here(cls) -> Job | None:
        """The job that this process belongs to; None if it belongs to none."""
        if "CCN_JOB" not in os.environ or "SLURM_PROCID" not in os.environ:
            return None
        nodes = os.environ["CCN_NODES"].split()
        world_size = int(os.environ["SLURM_NTASKS"])
        return cls(
            folder=Path(os.environ["CCN_JOB"]),
            nodes=nodes,
            rank=int(os.environ["SLURM_PROCID"]),
            world_size=world_size,
            ranks_per_node=world_size // len(nodes),
            master=os.environ["MASTER_ADDR"],
            port=int(os.environ["MASTER_PORT"]),
            limit=float(os.environ["ROLL_CALL_SECONDS"]),
        )

    @property
    def me(self) -> str:
        """Node and number of this rank, for messages."""
        return f"node {self.node_of(self.rank)}, rank {self.rank}"

    def node_of(self, rank: int) -> str:
        """Name of the node that a rank runs on."""
        return self.nodes[rank // self.ranks_per_node]

    def write(self, **facts: Any) -> None:
        """Adds facts to this rank's record, `ranks/RANK.json`; the fact `state` is what the rank is doing."""
        path = self._record(self.rank)
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self._read(self.rank) | facts, indent=1) + "\n")
        temporary.rename(path)

    def state_of(self, rank: int) -> str:
        """What a rank was doing when it last wrote to its record."""
        return str(self._read(rank).get("state", "has not started"))

    def _record(self, rank: int) -> Path:
        return self.folder / "ranks" / f"{rank}.json"

    def _read(self, rank: int) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads(self._record(rank).read_text())
        except FileNotFoundError:
            return {}
        return record

    def end_with(self, outcome: str) -> None:
        """Tells the batch script how the job ended, unless another rank has: `stopped ...` or `refused: ...`."""
        try:
            with open(self.folder / "outcome", "x") as file:
                file.write(outcome + "\n")
        except FileExistsError:
            pass
