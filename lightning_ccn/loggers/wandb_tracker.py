"""Weights & Biases, in such a way that it can neither stop nor slow a run.

A folder of a run has one W&B run. Its id stands in `wandb_id` there, so that a requeued job, a resume or a later
`ccn test` goes on with it. Rank 0 alone talks to the client. Without a key or a network the client writes its files
into the run's folder, and `wandb sync` uploads them later, the parts of a requeued run in order.

The client's own variables stand: WANDB_API_KEY, WANDB_BASE_URL, WANDB_PROJECT (here `lightning_ccn` by default),
WANDB_ENTITY, WANDB_TAGS, WANDB_RUN_GROUP (by default the experiment), WANDB_MODE, and those of a sweep's agent.
"""

from __future__ import annotations

import json
import netrc
import os
import secrets
import ssl
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Literal, ParamSpec
from urllib.parse import urlsplit

import numpy as np
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from lightning_ccn.provenance import git_state, slurm_state
from lightning_ccn.sharding.checkpoint import read_manifest, read_trainer_state, why_not_whole
from lightning_ccn.signals import terminated

Mode = Literal["auto", "offline", "off"]
PROBE_SECONDS, INIT_SECONDS = 5, 30
FINISH_SECONDS, UPLOAD_SECONDS = 20, 3600  # at the end: to send the last lines, and checkpoints where that is asked for
FLUSH_SECONDS = 1  # what a job that is killed may lose of its offline files; the client's own interval is 15
ID_FILE = "wandb_id"

P = ParamSpec("P")


def _harmless(method: Callable[Concatenate[WandbTracker, P], object]) -> Callable[Concatenate[WandbTracker, P], None]:
    """On rank 0 alone; the first error is said, and ends the tracking instead of the run."""

    @wraps(method)
    def guarded(self: WandbTracker, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if self.ended or not _rank_zero():
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self.ended = self.failed = True
            rank_zero_warn(f"W&B failed, the run goes on without it: {_words(error)}{self._upload_later()}")

    return guarded


class WandbTracker(WandbLogger):
    """Lightning's WandbLogger for one run folder; as a context manager it closes the W&B run.

    Nothing happens before the first value is logged, so a command that fails on its options leaves no W&B run.

    Args:
        folder: of the run, RUNS/EXPERIMENT/ID.
        config: of the W&B run: every option of the command.
        job_type: the command.
        parent: id of the W&B run whose checkpoint this one is fine-tuned from.
        offline: do not try to reach the server.
        upload_checkpoints: upload the checkpoints; otherwise W&B is told where they are.
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
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `wandb.Run`, begun when first asked for; what it raises is the caller's to catch."""
        if self._experiment is None:
            self._experiment = self._begin()
        return self._experiment

    @property
    def run_id(self) -> str:
        """Id of this folder's W&B run; made by the first that asks, and a sweep's agent's where there is one."""
        path = self.folder / ID_FILE
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4))
        return path.read_text().strip()

    def _begin(self) -> Any:
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
        because = self._offline_because or _why_offline()
        if because is None:
            try:
                run = begin("online")
                rank_zero_info(f"W&B: {run.url}")
                self._upload = f"wandb sync --include-online {Path(run.dir).parent}"
            except Exception as error:
                wandb.teardown()  # or the id would count as in use
                because = _words(error)
        if run is None:
            run = begin("offline")
            self._upload = f"wandb sync {self.folder / 'wandb'}"
            rank_zero_info(f"W&B: offline ({because}), into {self.folder / 'wandb'}")
        self._offline_because = because
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        here = {"git": git_state(), "slurm": slurm_state()}
        run.config.update({**self.config, **here}, allow_val_change=True)  # of a requeued run, some are new
        return run

    def __enter__(self) -> WandbTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._experiment is not None or self._recent:
            self._finish(0 if kind is None else 1)
        self.ended = True
        if self.failed:  # the client would try again when the interpreter exits, and print what it meets
            _end_client()

    @_harmless
    def _finish(self, exit_code: int) -> None:
        if terminated():
            self._begin_again()
        metrics = self.folder / "metrics.json"
        if metrics.exists():
            self.experiment.summary.update(json.loads(metrics.read_text()))
        stopped = self.upload_checkpoints and exit_code != 0  # SLURM waits for seconds, not for gigabytes
        if not stopped and (self._offline_because or not _why_unreachable(self.experiment.settings.base_url)):
            self._log_checkpoints()  # online, the client asks the server first, and for long if it is gone
        try:
            self.experiment.finish(exit_code)
        except TimeoutError:
            rank_zero_info(f"W&B: not all was sent within {self._patience} s.{self._upload_later()}")
        if self._offline_because:
            rank_zero_info(f"W&B: logged offline ({self._offline_because}).{self._upload_later()}")

    def _upload_later(self) -> str:
        return f" To upload what there is:  {self._upload}" if self._upload else ""

    # ------------------------------------------------------------------------------------------- what is logged

    @_harmless
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs a line; after SIGTERM, which ended the client's process too, it waits until the checkpoint is safe."""
        now = time.monotonic()
        self._recent.append((now, metrics, step))
        if terminated():
            return
        while now - self._recent[0][0] > 2 * FLUSH_SECONDS:
            self._recent.popleft()
        try:
            super().log_metrics(metrics, step)
        except ConnectionError:
            if not terminated(within=1.0):  # the client may hear of it first
                raise

    def _begin_again(self) -> None:
        """The same W&B run with a new client, which gets what the old one may have taken with it."""
        _end_client()
        self._experiment = None
        for _, metrics, step in self._recent:
            super().log_metrics(metrics, step)

    log_hyperparams = _harmless(WandbLogger.log_hyperparams)

    @_harmless
    def log_pictures(
        self, images: Mapping[str, np.ndarray], histograms: Mapping[str, tuple[np.ndarray, np.ndarray]], step: int
    ) -> None:
        """Logs images, uint8 [height, width, 4], and histograms, (counts [bins], edges [bins + 1])."""
        if terminated():  # they belong to a validation, which will be run again
            return
        import wandb

        media: dict[str, object] = {name: wandb.Image(pixels) for name, pixels in images.items()}
        media |= {name: wandb.Histogram(np_histogram=pair) for name, pair in histograms.items()}
        self.experiment.log({**media, "trainer/global_step": step})

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Remembers who saves; Lightning's would upload."""
        self._savers[checkpoint_callback.state_key] = checkpoint_callback

    def finalize(self, status: str) -> None:
        """Nothing: `fit` and the `test` after it are one W&B run."""

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
                artifact.add_dir(str(path), policy="immutable")  # else the client copies it to the home folder first
            else:  # without a checksum, which would read the tables
                artifact.add_reference(path.resolve().as_uri(), checksum=False)
            self.experiment.log_artifact(artifact, aliases=[path.stem, *(["best"] if path.name in best else [])])


def wanted(mode: Mode) -> bool:
    """Whether to track at all; the same on every rank."""
    return mode == "offline" or (mode == "auto" and os.environ.get("WANDB_MODE") != "disabled")


def _end_client() -> None:
    import wandb

    for end in (wandb.finish, wandb.teardown):
        with suppress(Exception):
            end()


def _rank_zero() -> bool:
    return rank_zero_only.rank == 0  # type: ignore[attr-defined]


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


# ------------------------------------------------------------------------------------------- key and network


def _why_offline() -> str | None:
    """Why the server is not worth trying, in words; None if it is."""
    import wandb

    if os.environ.get("WANDB_MODE") in ("offline", "dryrun"):
        return f"WANDB_MODE={os.environ['WANDB_MODE']}"
    url = str(wandb.setup(wandb.Settings(silent=True)).settings.base_url)
    if not has_key(url):
        return "no API key: `wandb login` stores one"
    return _why_unreachable(url)


def has_key(url: str) -> bool:
    """Whether the client will find an API key for the server at `url` without asking the user."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        hosts = netrc.netrc(path).hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return urlsplit(url).netloc in hosts or "api.wandb.ai" in hosts


def _why_unreachable(url: str) -> str | None:
    """An answer of any kind will do: the client's own first try would go on for half a minute."""
    try:
        urllib.request.urlopen(url, timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError:
        return None
    except OSError as error:
        reason = getattr(error, "reason", error)
        # the client has its own certificates
        return None if isinstance(reason, ssl.SSLError) else f"{url} cannot be reached: {reason}"
    return None


def parent_of(checkpoint: Path) -> str | None:
    """Id of the W&B run that wrote a checkpoint; None if the checkpoint is gone, or had none.

    Raises:
        ShardingError: the checkpoint is not whole.
    """
    if not checkpoint.is_dir():
        return None
    read_manifest(checkpoint)
    found: str | None = read_trainer_state(checkpoint).get(ID_FILE)
    return found
