"""The life of a run in any order: every page of an epoch is trained on once, or a refusal says why."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from lightning_ccn.cli import main
from lightning_ccn.sharding import newest_whole
from tests.conftest import write_dataset
from tests.processes import clean_environment
from tests.training.recorder import trained

PAGES, BATCH, EPOCHS = {"train": 24, "validation": 4, "test": 4}, 4, 2
STEPS = PAGES["train"] // BATCH  # of an epoch
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false", "--wandb", "off"]
SMALL = ["--model.system", "WideDeep", "--model.system.dim", "4", "--save_every", "0", "--test_after_fit", "false"]
REFUSAL = re.compile(r"^ccn: error: .+$", re.MULTILINE)


class Life(RuleBasedStateMachine):
    """A run is started, killed, ended early and continued; its data change; another starts from its weights."""

    most_ranks = 1

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        write_dataset(self.home / "may", pages=PAGES)
        write_dataset(self.home / "june", pages=PAGES, seed=1)  # other pages of the same users and items
        self.data, self.runs = "may", 0
        self._begin()

    def _begin(self) -> None:
        """A run that has not started."""
        self.runs += 1
        self.begun_with = self.data
        self.started = False

    def teardown(self) -> None:
        shutil.rmtree(self.home)

    def fit(self, *options: str, ranks: int = 1, crash_at: int | None = None) -> tuple[int, str]:
        """Runs `ccn fit`, of one rank in this process; the exit code and what it printed on stderr."""
        place = ["--data.folder", str(self.home / self.data), "--runs", str(self.home / "runs"), "--data.workers", "0"]
        place += ["--run_id", str(self.runs), "--trainer.callbacks=tests.training.recorder.Recorder"]
        record = [f"--trainer.callbacks.path={self.home}/{self.runs}.jsonl"]
        record += [f"--trainer.callbacks.crash_at={crash_at}"] if crash_at is not None else []
        world = ["--trainer.devices", str(ranks), "--trainer.accelerator", "cpu"]
        defaults = ["--data.batch_pages", str(BATCH), "--trainer.max_epochs", str(EPOCHS)]
        words = ["fit", *place, *record, *QUIET, *SMALL, *world, *defaults, *options]
        if ranks == 1:
            with redirect_stderr(io.StringIO()) as said:
                return main(words), said.getvalue()
        done = subprocess.run(
            [sys.executable, "-m", "lightning_ccn.cli", *words],
            env=clean_environment(PYTHONPATH=os.pathsep.join(sys.path), OMP_NUM_THREADS="1"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stderr

    @property
    def go_on(self) -> list[str]:
        return ["--ckpt_path", "last"] if self.started else []

    @property
    def has_checkpoint(self) -> bool:
        return newest_whole(self.home / "runs" / "default" / str(self.runs) / "checkpoints") is not None

    def refused(self, code: int, said: str) -> None:
        assert code == 2, said
        assert len(REFUSAL.findall(said)) == 1, said
        assert "Traceback" not in said

    @precondition(lambda self: self.data == self.begun_with)
    @rule(ranks=st.integers(1, 3), step=st.integers(0, STEPS * EPOCHS - 1), crashes=st.booleans())
    def run_until(self, ranks: int, step: int, crashes: bool) -> None:
        """Killed before a step, or ended by max_steps."""
        ranks = min(ranks, self.most_ranks)
        if crashes:
            _, said = self.fit(*self.go_on, ranks=ranks, crash_at=step)
        elif step:
            code, said = self.fit(*self.go_on, "--trainer.max_steps", str(step), ranks=ranks)
            assert code == 0, said
        self._if_nothing_was_saved()

    @precondition(lambda self: self.data == self.begun_with)
    @rule(ranks=st.integers(1, 3))
    def run_to_the_end(self, ranks: int) -> None:
        """Every page of both epochs was trained on once."""
        code, said = self.fit(*self.go_on, ranks=min(ranks, self.most_ranks))
        assert code == 0, said
        pages = sorted(pq.read_table(self.home / self.data / "train")["page_id"].to_pylist())
        for epoch in range(EPOCHS):
            steps = range(epoch * STEPS, (epoch + 1) * STEPS)
            assert sorted(trained(self.home / f"{self.runs}.jsonl", steps)) == pages, epoch
        self._begin()

    @precondition(lambda self: self.started and self.data == self.begun_with)
    @rule(
        option=st.sampled_from(
            [
                ("--data.batch_pages", "8"),
                ("--data.seed", "1"),
                ("--data.lanes", "2"),
                ("--model.lr", "0.5"),
                ("--trainer.strategy.table_lr", "0.5"),
                ("--trainer.limit_train_batches", "3"),
            ]
        )
    )
    def continue_as_another(self, option: tuple[str, str]) -> None:
        """Is refused."""
        self.refused(*self.fit(*self.go_on, *option))

    @rule(to=st.sampled_from(["may", "june"]))
    def change_data(self, to: str) -> None:
        """Continuing with other pages is refused."""
        self.data = to
        if self.started and self.data != self.begun_with:
            self.refused(*self.fit(*self.go_on))

    @precondition(lambda self: self.started)
    @rule()
    def fit_again(self) -> None:
        """Does not overwrite the run."""
        self.refused(*self.fit())

    @precondition(lambda self: self.started)
    @rule()
    def fine_tune(self) -> None:
        """Begins at the first page of a new run, on the data of now."""
        weights = str(self.home / "runs" / "default" / str(self.runs))
        self._begin()
        code, said = self.fit("--finetune", weights, "--trainer.max_steps", "1")
        assert code == 0, said
        self._if_nothing_was_saved()

    def _if_nothing_was_saved(self) -> None:
        """A run that was killed before its first save is begun anew, under another name."""
        self.started = self.has_checkpoint
        if not self.started:
            self._begin()


def live(examples: int, steps: int, ranks: int) -> None:
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    machine = type("LifeOn", (Life,), {"most_ranks": ranks})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=quiet,
            phases=[Phase.generate],  # to shrink a failing life takes longer than to read it
        ),
    )


def test_every_page_is_trained_on_once_or_a_refusal_says_why() -> None:
    live(examples=4, steps=6, ranks=1)


@pytest.mark.large
def test_every_page_is_trained_on_once_or_a_refusal_says_why_on_1_to_3_ranks() -> None:
    live(examples=12, steps=8, ranks=3)
