"""A real SLURM of three nodes on this machine, and jobs submitted to it as a user would."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LIMIT = 600.0  # seconds that a test waits for anything: a start takes ten, and minutes on a busy machine
# 96 pages in global batches of 8: 12 steps an epoch; every step may be saved
OPTIONS = (
    "--trainer.max_epochs 2 --data.batch_pages 8 --data.workers 1 --model.system.dim 8 --save_every 0 --wandb off "
    "--trainer.log_every_n_steps 2 --trainer.enable_progress_bar false --trainer.enable_model_summary false "
    "--checkpoint.save_top_k 0"
)
STEPS, PAGES = 24, 96


def until(true: Callable[[], object], what: str) -> None:
    """Waits for something to become true."""
    deadline = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < deadline, f"not within {LIMIT:g} s: {what}"
        time.sleep(0.1)


class Cluster:
    """Nodes n1, n2 and n3, of one core each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "MAKE", "MFLAGS", "CCN"))}
        self.environment |= {"SLURM_CONF": str(folder / "slurm.conf"), "OMP_NUM_THREADS": "1"}
        self.environment["PYTHONPATH"] = str(ROOT)  # jobs import this package's callbacks; their own code comes first
        bin = folder / "venv" / "bin"
        bin.mkdir(parents=True)
        (bin / "ccn").write_text(f'#!/bin/sh\nexec "{sys.executable}" -W ignore -m lightning_ccn.cli "$@"\n')
        (bin / "ccn").chmod(0o755)
        (folder / "venv" / "installed-cpu").touch()  # as `make install` would leave it

    def do(self, action: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs slurm_on_this_machine.sh."""
        script = str(ROOT / "tests/cluster/slurm_on_this_machine.sh")
        return subprocess.run(["bash", script, action, str(self.folder), *words], capture_output=True, text=True)

    def ask(self, *command: str) -> str:
        """What a SLURM command prints."""
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def make(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs make in the repository, with a finished installation."""
        venv = self.folder / "venv"
        command = [
            "make",
            "--silent",
            "-C",
            str(ROOT),
            f"--old-file={venv}/installed-cpu",
            f"VENV={venv}",
            "FLAVOUR=cpu",
        ]
        command += words
        return subprocess.run(command, capture_output=True, text=True, env=self.environment)

    def submit(self, desk: Path, dataset: Path, *words: str, runs: Path | None = None, **more: Any) -> Run:
        """`make train-multinode` with the callbacks of `desk`: what trained is listed there, and held.

        Args:
            desk: of this run alone.
            dataset: that it trains on.
            words: further ones of make's command line.
            runs: folder of all runs; in `desk` unless given.
            more: `nodes` is their number, `options` are further ones of `ccn fit`.
        """
        callbacks = (
            f"--trainer.callbacks=tests.cluster.pause_at_steps.PauseAtSteps --trainer.callbacks.folder={desk}/hold "
            f"--trainer.callbacks+=tests.training.recorder.Recorder --trainer.callbacks.path={desk}/pages.jsonl"
        )
        arguments = f"ARGS=--runs {runs or desk / 'runs'} {OPTIONS} {callbacks} {more.get('options', '')}"
        hold(desk)
        nodes = f"NODES={more.get('nodes', 2)}"
        done = self.make("train-multinode", nodes, "GPUS=0", f"DATA={dataset}", arguments, *words)
        return self.submitted(done, desk)

    def submitted(self, done: subprocess.CompletedProcess[str], desk: Path) -> Run:
        """The run that a command has submitted."""
        assert done.returncode == 0, done.stdout + done.stderr
        found = re.search(r"submitted job (\w+); its files will be in (\S+)", done.stdout)
        assert found is not None, done.stdout
        return Run(self, found[1], Path(found[2]), desk)

    def state(self, job: str) -> set[str]:
        """SLURM's words for a job, or for the tasks of an array: RUNNING, COMPLETED, ..."""
        return set(re.findall(r"JobState=(\w+)", self.ask("scontrol", "show", "job", job)))


def hold(desk: Path, *steps: int | str) -> None:
    """Runs of this desk will wait before each of these steps, or in the middle of a `save`."""
    (desk / "hold").mkdir(parents=True, exist_ok=True)
    for step in steps:
        (desk / "hold" / str(step)).touch()


@dataclass
class Run:
    """A submitted job, and the folder of its run."""

    cluster: Cluster
    id: str
    folder: Path
    desk: Path

    @property
    def job(self) -> Path:
        return self.folder / "jobs" / self.id

    @property
    def log(self) -> str:
        """What the batch script said."""
        path = self.job / "job.log"
        return path.read_text() if path.exists() else ""

    @property
    def state(self) -> str:
        """SLURM's word for the job: RUNNING, COMPLETED, ..."""
        (state,) = self.cluster.state(self.id)
        return state

    def until_log_has(self, words: str, times: int = 1) -> None:
        until(lambda: self.log.count(words) >= times or self.ended_badly(), f"{times} x {words!r} in {self.log}")
        assert self.log.count(words) >= times, self.everything()

    def ended_badly(self) -> bool:
        return self.state in ("FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

    def until_state(self, state: str) -> None:
        until(lambda: self.state == state or self.ended_badly(), f"{state}; {self.log}")
        assert self.state == state, self.everything()

    def until_held(self, at: int | str, ranks: int = 2) -> None:
        files = [self.desk / "hold" / f"{at}.{rank}" for rank in range(ranks)]
        until(lambda: all(file.exists() for file in files) or self.ended_badly(), f"held at {at}; {self.log}")
        assert not self.ended_badly(), self.everything()
        for file in files:
            file.unlink()

    def let_go(self, at: int | str) -> None:
        (self.desk / "hold" / str(at)).unlink()

    def signal(self, name: str = "USR1", rank: int | None = None) -> None:
        """To the whole job through SLURM, or to the process of one rank."""
        if rank is None:
            self.cluster.ask("scancel", f"--signal={name}", self.id)
        else:
            record = json.loads((self.job / "ranks" / f"{rank}.json").read_text())
            os.kill(record["process"], getattr(signal, f"SIG{name}"))

    def steps(self) -> list[int]:
        """Global steps that were trained, with repetitions, as rank 0 saw them."""
        lines = [json.loads(line) for line in (self.desk / "pages.jsonl").read_text().splitlines()]
        return sorted(line["step"] for line in lines if line["rank"] == 0)

    def times_trained(self) -> Counter[int]:
        """How often each page was trained on, over all ranks."""
        lines = [json.loads(line) for line in (self.desk / "pages.jsonl").read_text().splitlines()]
        return Counter(page for line in lines for page in line["pages"])

    def limit_to(self, minutes: int) -> None:
        """Lets the job's time limit come in so many minutes, of which the one that runs counts."""
        seconds = self.cluster.ask("squeue", "--noheader", f"--jobs={self.id}", "--format=%M").split(":")
        run_so_far = sum(int(part) * 60**i for i, part in enumerate(reversed(seconds))) // 60
        self.cluster.ask("scontrol", "update", f"JobId={self.id}", f"TimeLimit={run_so_far + minutes}")

    def note(self, words: str) -> None:
        """For the story: what is done to the run now."""
        with (self.desk / "notes.log").open("a") as file:
            file.write(f"{time.strftime('%F %T')} >>> {words}\n")

    def everything(self) -> str:
        """The job's logs, for the message of a test that failed."""
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.job.glob("*.log")))
