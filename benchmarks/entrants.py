"""Who takes part in the benchmark: the command of each contestant, and the data that they get."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contest import Contestant
from benchmarks.pages import Shape, feed, write
from benchmarks.turns import ClockName

BATCH_ITEMS, PEER_BATCHES = 1_020, 4
SYSTEMS = ("din", "sim", "tan", "ccn")
INSTANCE_MAJOR = ("din", "sim")  # the others read the page around an item
PEERS = {  # name -> model of `peers`, activation of its unit
    "fuxictr_din": ("fuxictr_din", "prelu"),
    "fuxictr_din_dice": ("fuxictr_din", "Dice"),
    "rechub_din": ("rechub_din", "prelu"),
    "rechub_din_dice": ("rechub_din", "dice"),
    "deepctr_din": ("deepctr_din", "prelu"),
    "deepctr_din_dice": ("deepctr_din", "Dice"),
    "fuxictr_sim": ("fuxictr_sim", "none"),
}


@dataclass(frozen=True)
class Peers:
    """The peers' environment.

    Attributes:
        python: Its interpreter.
        zoo: The folder `model_zoo` of FuxiCTR's source distribution.
    """

    python: Path
    zoo: Path


@dataclass(frozen=True)
class Stage:
    """Where and how contestants run.

    Attributes:
        scratch: Folder for data, logs and runs, which is removed at the end.
        clock: What a second is.
        threads: Threads of each process.
        peers: The peers' environment; None leaves them out.
    """

    scratch: Path
    clock: ClockName
    threads: int
    peers: Peers | None

    def ours(self, name: str, system: str, folder: Path, shape: Shape, ranks: int = 1, *options: str) -> Contestant:
        """`ccn fit` of a system on a folder.

        Args:
            name: Name of the contestant.
            system: Name of the system, a file in `conf/model`.
            folder: Dataset folder.
            shape: Shape of its pages; a batch has about `BATCH_ITEMS` items for each rank.
            ranks: Number of ranks.
            options: More options of `ccn fit`.
        """
        command = [sys.executable, "-m", "benchmarks.ours", "{pipe}", self.clock, str(self.threads), "fit"]
        command += ["--config", "conf/experiment/default.yaml", "--config", f"conf/model/{system}.yaml"]
        command += ["--data.folder", str(folder), "--data.batch_pages", str(ranks * batch_pages(shape))]
        command += ["--data.short_length", str(shape.short), "--data.long_length", str(shape.found)]
        command += ["--data.workers", "0" if self.clock == "cpu" else "1"]
        command += ["--model.system.init_args.hidden", "[200,80]", "--trainer.devices", str(ranks)]
        command += ["--trainer.limit_val_batches", "0", "--test_after_fit", "false", "--wandb", "off"]
        command += ["--save_every", "1e6"]  # the first step saves, and no later one
        command += ["--runs", str(self.scratch / "runs"), "--run_id", name, *options]
        return Contestant(name, command, self.scratch, self.threads, ranks)

    def peer(self, name: str, file: Path, rows: str = "") -> Contestant:
        """A peer with a feed; `rows` tells contestants with larger tables apart."""
        assert self.peers is not None
        model, activation = PEERS[name]
        command = [str(self.peers.python), "-m", "benchmarks.peers", "{pipe}", self.clock, str(self.threads)]
        command += [model, activation, str(file), str(self.peers.zoo)]
        return Contestant(name + rows, command, self.scratch, self.threads)

    def reader(self, name: str, folder: Path, batch: int, short: int, long: int) -> Contestant:
        """The reader on a folder, see `benchmarks.reading`."""
        command = [sys.executable, "-m", "benchmarks.reading", "{pipe}", self.clock, str(self.threads), str(folder)]
        return Contestant(name, [*command, *map(str, (batch, short, long))], self.scratch, self.threads)

    def limits(self) -> Contestant:
        """The machine itself."""
        command = [sys.executable, "-m", "benchmarks.limits", "{pipe}", self.clock, str(self.threads)]
        return Contestant("limits", command, self.scratch, self.threads)

    def pages(self, name: str, shape: Shape, steps: int, instance_major: bool = False, ranks: int = 1) -> Path:
        """A dataset folder with the pages of so many steps."""
        whole = replace(shape, pages=steps * ranks * batch_pages(shape))
        return write(self.scratch / "data" / name, whole, instance_major)

    def feed(self, name: str, shape: Shape) -> Path:
        """A file with the peers' feed: the first pages of the same dataset."""
        path = self.scratch / f"{name}.npz"
        arrays: dict[str, Any] = dict(feed(shape, PEER_BATCHES, batch_pages(shape)))
        np.savez(path, **arrays)
        return path


def batch_pages(shape: Shape) -> int:
    """Pages of a batch of about `BATCH_ITEMS` items."""
    return round(BATCH_ITEMS / shape.items)


def each_item_a_page(shape: Shape) -> Shape:
    """The shape of pages whose items have each become a page."""
    return replace(shape, items=1)
