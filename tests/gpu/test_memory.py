"""The memory of a GPU beside what the plan says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor

from lightning_ccn.sharding import TorchRecStrategy
from tests.gpu.conftest import needs_gpu
from tests.sharding.ranks import on_ranks

ROWS = {"user": 20_000_000, "item": 5_000_000}
IDS = 8_192  # of each table in a batch


class Tables(L.LightningModule):
    """Two tables and one layer."""

    def __init__(self, rows: dict[str, int]) -> None:
        super().__init__()
        self.rows = rows

    def configure_model(self) -> None:
        if hasattr(self, "tables"):
            return
        configs = [
            EmbeddingBagConfig(name=name, embedding_dim=16, num_embeddings=rows, feature_names=[name])
            for name, rows in self.rows.items()
        ]
        self.tables = EmbeddingBagCollection(tables=configs, device=torch.device("meta"))
        self.layer = torch.nn.Linear(32, 1)

    def training_step(self, batch: KeyedJaggedTensor, batch_idx: int) -> Tensor:
        loss: Tensor = self.layer(self.tables(batch).values()).square().mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adagrad(self.parameters(), lr=0.1)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch.to(device)


def peak_of_a_fit_and_a_save(home: Path, rows: dict[str, int]) -> tuple[float, ...]:
    """GiB of the plan, and the peaks of a fit of five steps and of a save after it."""
    batches = [
        KeyedJaggedTensor(
            keys=list(rows),
            values=torch.cat([torch.randint(0, count, (IDS,)) for count in rows.values()]),
            lengths=torch.ones(IDS * len(rows), dtype=torch.long),
        )
        for _ in range(5)
    ]
    strategy = TorchRecStrategy()
    trainer = L.Trainer(
        strategy=strategy,
        accelerator="gpu",
        devices=1,
        max_epochs=1,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=home,
    )
    torch.cuda.reset_peak_memory_stats()
    trainer.fit(Tables(rows), DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    in_fit = torch.cuda.max_memory_allocated()
    trainer.save_checkpoint(home / "last.ckpt")
    assert strategy.plan is not None
    return tuple(b / 2**30 for b in (max(strategy.plan.rank_bytes()), in_fit, torch.cuda.max_memory_allocated()))


@pytest.mark.gpu
@needs_gpu
def test_a_fit_and_a_save_take_little_more_than_the_plans_bytes(tmp_path: Path) -> None:
    ((planned, in_fit, with_save),) = on_ranks(1, peak_of_a_fit_and_a_save, home=tmp_path, rows=ROWS)
    assert planned < in_fit < 1.05 * planned + 0.25
    assert with_save < 1.05 * planned + 0.25
