"""Weights & Biases, used such that it can neither stop nor slow down a run.

Every run folder has one W&B run, whose id is in the folder's file `wandb_id`: a requeued job, a resumed run and a later
`ccn test` continue it. Only rank 0 talks to the client. Without a key or a network the client writes its files into the
run's folder. `wandb sync` uploads them later, the parts of a requeued run in their order.

The client's own environment variables work as usual: WANDB_API_KEY, WANDB_BASE_URL, WANDB_PROJECT (default here:
`lightning_ccn`), WANDB_ENTITY, WANDB_TAGS, WANDB_RUN_GROUP (default: the experiment), WANDB_MODE, and those that a
sweep's agent sets.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Literal, ParamSpec

import numpy as np
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_ccn.lightning_private import ExperimentOwner, is_rank_zero
from lightning_ccn.loggers.wandb_server import why_offline, why_unreachable
from lightning_ccn.provenance import git_state, slurm_state
from lightning_ccn.sharding.checkpoint import read_manifest, read_trainer_state, why_not_whole
from lightning_ccn.signals import terminated

Mode = Literal["auto", "offline", "off"]
INIT_SECONDS = 30
FINISH_SECONDS, UPLOAD_SECONDS = 20, 3600  # at the end, for the last lines, and for checkpoints
FLUSH_SECONDS = 1  # a killed job may lose so much of its offline files; the client's own interval is 15
ID_FILE = "wandb_id"

P = ParamSpec("P")


def _harmless(method: Callable[Concatenate[WandbTracker, P], object]) -> Callable[Concatenate[WandbTracker, P], None]:
    """Makes a method run on rank 0 only; its first error is printed, and ends the tracking instead of the run."""

    @wraps(method)
    def guarded(self: WandbTracker, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if self.ended or not is_rank_zero():
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self.ended = self.failed = True
            _release_console()
            rank_zero_warn(f"W&B failed, the run continues without it: {_one_line(error)}{self._upload_later()}")

    return guarded


class WandbTracker(ExperimentOwner, WandbLogger):
    """Lightning's WandbLogger for one run folder; as a context manager it closes the W&B run.

    The W&B run starts when the first value is logged, so a command with wrong options leaves none.

    Args:
        folder: Folder of the run, RUNS/EXPERIMENT/ID.
        config: Every option of the command.
        job_type: Name of the command.
        parent: Id of the W&B run whose checkpoint this one is fine-tuned from.
        offline: Do not try to reach the server.
        upload_checkpoints: Upload the checkpoints; otherwise W&B gets their paths.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        job_type: str,
        parent: str | None = None,
        offline: bool = False,
        upload_checkpoints: bool = False,
    ) -> None:
        super().__init__(project=os.environ.get("WANDB_PROJECT", "lightning_ccn"), save_dir=folder)
        self.folder = folder
        self.config = {**config, "parent": parent}
        self.upload_checkpoints = upload_checkpoints
        self.ended = self.failed = False
        self._init: dict[str, Any] = {
            "dir": str(folder),
            "project": self.name,
            "group": os.environ.get("WANDB_RUN_GROUP", folder.parent.name),
            "name": f"{folder.parent.name}/{folder.name}",
            "job_type": job_type,
            "notes": f"fine-tuned from {parent}" if parent else None,
            "resume": "allow",
        }
        self._offline_because = "as asked" if offline else None
        self._patience = UPLOAD_SECONDS if upload_checkpoints else FINISH_SECONDS
        self._upload = ""  # the command for what the client has written
        self._recent: deque[tuple[float, Mapping[str, float], int | None]] = deque()  # may not be in its files yet
        self._savers: dict[str, ModelCheckpoint] = {}

    # ------------------------------------------------------------------------------------------- the W&B run

    @property
    def run_id(self) -> str:
        """Id of this folder's W&B run: that of the sweep's agent, or one that the first call makes."""
        path = self.folder / ID_FILE
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4))
        return path.read_text().strip()

    def new_experiment(self) -> Any:
        """Starts the `wandb.Run`, online or offline."""
        import wandb

        def begin(mode: Literal["online", "offline"]) -> Any:
            settings = wandb.Settings(
                silent=True,
                init_timeout=INIT_SECONDS,
                login_timeout=INIT_SECONDS,
                finish_timeout=self._patience,
                finish_timeout_raises=True,
                x_transaction_log_flush_interval=FLUSH_SECONDS,
            )
            return wandb.init(id=self.run_id, mode=mode, settings=settings, **self._init)

        run = None
        because = self._offline_because or why_offline()
        if because is None:
            try:
                run = begin("online")
                rank_zero_info(f"W&B: {run.url}")
                self._upload = f"wandb sync --include-online {Path(run.dir).parent}"
            except Exception as error:
                wandb.teardown()  # or the id would count as in use
                because = _one_line(error)
        if run is None:
            run = begin("offline")
            self._upload = f"wandb sync {self.folder / 'wandb'}"
            rank_zero_info(f"W&B: offline ({because}), into {self.folder / 'wandb'}")
        self._offline_because = because
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        here = {"git": git_state(), "slurm": slurm_state()}
        run.config.update({**self.config, **here}, allow_val_change=True)  # a requeued run has new ones
        return run

    def __enter__(self) -> WandbTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.has_experiment or self._recent:
            self._finish(0 if kind is None else 1)
        self.ended = True
        if self.failed:  # the client would try again when the interpreter exits, and print its errors
            _end_client()

    @_harmless
    def _finish(self, exit_code: int) -> None:
        if terminated():
            self._begin_again()
        metrics = self.folder / "metrics.json"
        if metrics.exists():
            self.experiment.summary.update(json.loads(metrics.read_text()))
        stopped = self.upload_checkpoints and exit_code != 0  # SLURM waits for seconds, not for gigabytes
        if not stopped and (self._offline_because or not why_unreachable(self.experiment.settings.base_url)):
            self._log_checkpoints()  # online, the client asks the server first, and for long if it is gone
        try:
            self.experiment.finish(exit_code)
        except TimeoutError:
            rank_zero_info(f"W&B: the upload did not finish within {self._patience} s.{self._upload_later()}")
        if self._offline_because:
            rank_zero_info(f"W&B: logged offline ({self._offline_because}).{self._upload_later()}")

    def _upload_later(self) -> str:
        return f" To upload it later:  {self._upload}" if self._upload else ""

    # ------------------------------------------------------------------------------------------- what is logged

    @_harmless
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs the values of a step. After SIGTERM, which ended the client's process too, it keeps them for later."""
        now = time.monotonic()
        self._recent.append((now, metrics, step))
        if terminated():
            return
        while now - self._recent[0][0] > 2 * FLUSH_SECONDS:
            self._recent.popleft()
        try:
            super().log_metrics(metrics, step)
        except ConnectionError:
            if not terminated(within=1.0):  # SIGTERM may reach the client first
                raise

    def _begin_again(self) -> None:
        """Continues the W&B run with a new client, and logs again what the old one may have lost."""
        _end_client()
        self.forget_experiment()
        for _, metrics, step in self._recent:
            super().log_metrics(metrics, step)

    log_hyperparams = _harmless(WandbLogger.log_hyperparams)

    @_harmless
    def log_figures(
        self, images: Mapping[str, np.ndarray], histograms: Mapping[str, tuple[np.ndarray, np.ndarray]], step: int
    ) -> None:
        """Logs images, uint8 [height, width, 4], and histograms, (counts [bins], edges [bins + 1])."""
        if terminated():  # their validation will be run again
            return
        import wandb

        media: dict[str, object] = {name: wandb.Image(pixels) for name, pixels in images.items()}
        media |= {name: wandb.Histogram(np_histogram=pair) for name, pair in histograms.items()}
        self.experiment.log({**media, "trainer/global_step": step})

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Remembers the callback for later; Lightning's logger would upload at once."""
        self._savers[checkpoint_callback.state_key] = checkpoint_callback

    def finalize(self, status: str) -> None:
        """Does nothing: `fit` and the `test` after it are one W&B run."""

    def _log_checkpoints(self) -> None:
        import wandb

        best = set()
        for saver in self._savers.values():
            if saver.best_model_score is not None:
                self.experiment.summary[f"best_{saver.monitor}"] = saver.best_model_score.item()
                best.add(Path(saver.best_model_path).name)
        whole = [path for path in (self.folder / "checkpoints").glob("*.ckpt") if not why_not_whole(path)]
        about = {path: read_manifest(path) for path in whole}
        for path in sorted(whole, key=lambda path: (about[path]["global_step"], path.name)):  # W&B's latest is the last
            metadata = {key: about[path][key] for key in ("epoch", "global_step", "world_size")}
            artifact = wandb.Artifact(f"checkpoint-{self.run_id}", "model", metadata=metadata)
            if self.upload_checkpoints:
                artifact.add_dir(str(path), policy="immutable")  # or the client copies it to the home folder first
            else:  # without a checksum, for which the client would read the whole tables
                artifact.add_reference(path.resolve().as_uri(), checksum=False)
            self.experiment.log_artifact(artifact, aliases=[path.stem, *(["best"] if path.name in best else [])])


def wanted(mode: Mode) -> bool:
    """Whether to track the run; the same on every rank."""
    return mode == "offline" or (mode == "auto" and os.environ.get("WANDB_MODE") != "disabled")


def _end_client() -> None:
    import wandb

    _release_console()
    for end in (wandb.finish, wandb.teardown):
        with suppress(Exception):
            end()


def _release_console() -> None:
    """Stops W&B's copy of what is printed: with a dead client `wandb.finish` fails before it does."""
    import wandb

    with suppress(Exception):
        if wandb.run is not None:
            wandb.run._console_stop()


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def parent_of(checkpoint: Path) -> str | None:
    """Id of the W&B run that wrote a checkpoint; None if the checkpoint is missing or was not tracked.

    Raises:
        ShardingError: The checkpoint is incomplete.
    """
    if not checkpoint.is_dir():
        return None
    read_manifest(checkpoint)
    found: str | None = read_trainer_state(checkpoint).get(ID_FILE)
    return found
