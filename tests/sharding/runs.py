"""Runs of the DLRM on real ranks, and their results, assembled from the ranks' parts."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor
from torchrec.distributed import DistributedModelParallel

from lightning_ccn.sharding import ShardingError, TorchRecStrategy
from lightning_ccn.sharding.sharded_rows import ShardedRows
from lightning_ccn.sharding.state import module_state, optimizer_state, table_optimizer_state
from lightning_ccn.sharding.tables import dense_names
from tests.sharding.dlrm import DLRM, META, UNEQUAL, Batch, Loader
from tests.sharding.ranks import on_ranks

SEED = 7


def make_model(on_meta: bool = True, **settings: Any) -> DLRM:
    L.seed_everything(SEED, verbose=False)
    model = DLRM(device=META if on_meta else torch.device("cpu"), **settings)
    model.configure_model()
    return model


def make_trainer(folder: str | Path, strategy: TorchRecStrategy, **settings: Any) -> L.Trainer:
    """A Trainer for the ranks that `on_ranks` has started.

    Args:
        folder: Folder of the run.
        strategy: The strategy.
        settings: Arguments of the Trainer. In addition, `save_every` saves `step=<n>.ckpt` every so many steps and
            keeps them all.
    """
    settings = {"max_epochs": 1, "num_sanity_val_steps": 0} | settings
    if every := settings.pop("save_every", None):
        saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=every, save_top_k=-1)
        settings["callbacks"] = [*settings.get("callbacks", []), saving]
    checkpoints = any(isinstance(callback, ModelCheckpoint) for callback in settings.get("callbacks", []))
    return L.Trainer(
        accelerator="cpu",
        devices=int(os.environ["CCN_TEST_WORLD_SIZE"]),
        strategy=strategy,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=checkpoints,
        use_distributed_sampler=False,
        default_root_dir=str(folder),
        **settings,
    )


@dataclass
class Outcome:
    """Result of a fit.

    Attributes:
        losses: Loss of each step, averaged over the ranks.
        state: Every tensor in full, by its name in a checkpoint.
    """

    losses: list[float]
    state: dict[str, Tensor]


def own_part(trainer: L.Trainer, model: DLRM) -> dict[str, Any]:
    """The losses on this rank, and for each tensor its full size and the parts on this rank."""
    strategy = trainer.strategy
    assert isinstance(strategy, TorchRecStrategy) and isinstance(strategy.model, DistributedModelParallel)
    state: dict[str, Any] = module_state(model, model.state_dict())
    state |= table_optimizer_state(model, strategy.model)
    for optimizer in strategy.optimizers:
        state |= optimizer_state(optimizer, dense_names(model))[0]
    parts = {}
    for key, value in state.items():
        rows = (
            value
            if isinstance(value, ShardedRows)
            else ShardedRows(value.size(), [(torch.Size([0] * value.dim()), value)])
        )
        parts[key] = (rows.size(), [(offset, part.detach().clone()) for offset, part in rows.parts])
    return {"losses": model.losses, "parts": parts}


def put_together(results: list[dict[str, Any]]) -> Outcome:
    """Assemble the results of `own_part` on all ranks, on which replicated tensors must be equal."""
    state: dict[str, Tensor] = {}
    for result in results:
        for key, (size, parts) in result["parts"].items():
            whole = state.setdefault(key, torch.full(size, torch.nan))
            for offset, part in parts:
                here = tuple(slice(o, o + n) for o, n in zip(offset, part.shape, strict=True))
                known = ~torch.isnan(whole[here])
                assert torch.equal(whole[here][known], part[known].float()), f"ranks differ in {key}"
                whole[here] = part.float()
    assert not any(value.isnan().any() for value in state.values())
    losses = torch.tensor([result["losses"] for result in results])
    return Outcome(losses.mean(0).tolist(), state)


class Crashed(RuntimeError):
    """Raised by `Crash`."""


class Crash(Callback):
    """Raises `Crashed` after `step` steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise Crashed


def fit(
    folder: str,
    steps: int = 5,
    sizes: tuple[int, ...] = UNEQUAL,
    model: dict[str, Any] | None = None,
    strategy: dict[str, Any] | None = None,
    trainer: dict[str, Any] | None = None,
    ckpt_path: str | None = None,
    crash_after: int | None = None,
    loader: Callable[[TorchRecStrategy, Loader], Iterable[Batch]] | None = None,
) -> dict[str, Any]:
    """On one rank: fit a new model in epochs of `steps` batches, and return `own_part`.

    `loader` makes another loader of the usual one.
    """
    module = make_model(**(model or {}))
    settings = dict(trainer or {})
    if crash_after is not None:
        settings["callbacks"] = [*settings.get("callbacks", []), Crash(crash_after)]
    placed = TorchRecStrategy(**(strategy or {}))
    runner, batches = make_trainer(folder, placed, **settings), Loader(steps, sizes)
    with suppress(Crashed):
        runner.fit(module, loader(placed, batches) if loader else batches, ckpt_path=ckpt_path)
    return own_part(runner, module)


def fitted(world_size: int, folder: str | Path, **settings: Any) -> Outcome:
    """The assembled result of `fit` on `world_size` ranks."""
    return put_together(on_ranks(world_size, fit, folder=str(folder), **settings))


def try_to_fit(**settings: Any) -> list[str]:
    """On one rank: the message of the ShardingError that `fit` raises, or its warnings if it raises none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fit(**settings)
        except ShardingError as error:
            return [str(error)]
    return [str(warning.message) for warning in caught]


def refusal(folder: str | Path, world_size: int = 1, **settings: Any) -> str:
    """The error message or the one warning of a fit with unsupported settings, which must be the same on every rank."""
    said = on_ranks(world_size, try_to_fit, folder=str(folder), **settings)
    assert all(one == said[0] for one in said), said
    (message,) = said[0]
    return message
