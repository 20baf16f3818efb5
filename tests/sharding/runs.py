"""Runs of the DLRM on real ranks, and what they leave behind, put together from the ranks' parts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lightning_ccn.sharding import TorchRecStrategy
from lightning_ccn.sharding.rows import Rows
from lightning_ccn.sharding.state import module_state, optimizer_state, table_optimizer_state
from lightning_ccn.sharding.tables import dense_names
from tests.sharding.dlrm import DLRM, META, UNEQUAL, Loader
from tests.sharding.ranks import on_ranks

SEED = 7


def quiet_trainer(folder: str | Path, strategy: TorchRecStrategy, **settings: Any) -> L.Trainer:
    """A Trainer for the world that `on_ranks` has prepared, without logs, bars and checkpoints."""
    settings = {"max_epochs": 1, "enable_checkpointing": False, "num_sanity_val_steps": 0} | settings
    return L.Trainer(
        accelerator="cpu",
        devices=int(os.environ["CCN_TEST_WORLD_SIZE"]),
        strategy=strategy,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=str(folder),
        **settings,
    )


def make_model(on_meta: bool = True, **settings: Any) -> DLRM:
    L.seed_everything(SEED, verbose=False)
    model = DLRM(device=META if on_meta else torch.device("cpu"), **settings)
    model.configure_model()
    return model


@dataclass
class Outcome:
    """`losses`: of each step, averaged over ranks; `state`: every tensor by its name in a checkpoint, whole."""

    losses: list[float]
    state: dict[str, Tensor]


def own_part(trainer: L.Trainer, model: DLRM) -> dict[str, Any]:
    """What this rank holds: losses, and of each tensor the size and the parts."""
    strategy = trainer.strategy
    assert isinstance(strategy, TorchRecStrategy) and strategy._dmp is not None
    state: dict[str, Any] = module_state(model, model.state_dict())
    state |= table_optimizer_state(model, strategy._dmp)
    for optimizer in strategy.optimizers:
        state |= optimizer_state(optimizer, dense_names(model))[0]
    parts = {}
    for key, value in state.items():
        rows = value if isinstance(value, Rows) else Rows(value.size(), [(torch.Size([0] * value.dim()), value)])
        parts[key] = (rows.size(), [(offset, part.detach().clone()) for offset, part in rows.parts])
    return {"losses": model.losses, "parts": parts}


def put_together(results: list[dict[str, Any]]) -> Outcome:
    """The whole of what `own_part` gave on each rank; replicated tensors must be equal on all."""
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


class StopAt(Callback):
    """Stop training after so many steps, as a signal from SLURM would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.should_stop = True


def fit(
    folder: str,
    steps: int = 5,
    sizes: tuple[int, ...] = UNEQUAL,
    model: dict[str, Any] | None = None,
    strategy: dict[str, Any] | None = None,
    trainer: dict[str, Any] | None = None,
    ckpt_path: str | None = None,
) -> dict[str, Any]:
    """On one rank: fit a new model; its part of the outcome."""
    module = make_model(**(model or {}))
    runner = quiet_trainer(folder, TorchRecStrategy(**(strategy or {})), **(trainer or {}))
    runner.fit(module, Loader(steps, sizes), ckpt_path=ckpt_path)
    return own_part(runner, module)


def fitted(world_size: int, folder: Path, **settings: Any) -> Outcome:
    """`fit` on `world_size` ranks, put together."""
    return put_together(on_ranks(world_size, fit, folder=str(folder), **settings))
