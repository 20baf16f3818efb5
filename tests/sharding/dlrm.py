"""A small DLRM with a sequence: user bags, item ids looked up by either kernel, a dense part. Nothing of CCN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchrec import (
    EmbeddingBagCollection,
    EmbeddingBagConfig,
    EmbeddingCollection,
    EmbeddingConfig,
    KeyedJaggedTensor,
    PoolingType,
)
from torchrec.modules.embedding_configs import DataType

DIM, CITIES, TAGS, ITEMS, NUMBERS = 8, 11, 40, 101, 3
META = torch.device("meta")


@dataclass
class Batch:
    """`user`: KJT of city and tags, a bag a row each; `item`: KJT of target (one id a row) and history (several)."""

    user: KeyedJaggedTensor
    item: KeyedJaggedTensor
    numbers: Tensor  # float32[rows, NUMBERS]
    label: Tensor  # float32[rows]

    def to(self, device: torch.device) -> Batch:
        return Batch(self.user.to(device), self.item.to(device), self.numbers.to(device), self.label.to(device))


def make_batch(step: int, rows: int = 12, start: int = 0, stop: int | None = None) -> Batch:
    """Rows `start` to `stop` of the global batch of a step: the global batch is the same for every world size."""
    g = torch.Generator().manual_seed(1_000 + step)
    lengths = torch.randint(0, 4, (rows, 3), generator=g)  # tags, history; a bag or a history may be empty
    city = torch.randint(0, CITIES, (rows,), generator=g)
    tags = torch.randint(0, TAGS, (rows, 4), generator=g)
    target = torch.randint(0, ITEMS, (rows,), generator=g)
    history = torch.randint(0, ITEMS, (rows, 4), generator=g)
    numbers = torch.randn(rows, NUMBERS, generator=g)
    label = (torch.rand(rows, generator=g) < 0.4).float()
    own = range(start, rows if stop is None else stop)
    n_tags, n_history = lengths[own, 0], lengths[own, 1]
    one = torch.ones(len(own), dtype=torch.long)
    user = KeyedJaggedTensor(
        keys=["city", "tags"],
        values=torch.cat([city[own], *(tags[i, : lengths[i, 0]] for i in own)]),
        lengths=torch.cat([one, n_tags]),
    )
    item = KeyedJaggedTensor(
        keys=["target", "history"],
        values=torch.cat([target[own], *(history[i, : lengths[i, 1]] for i in own)]),
        lengths=torch.cat([one, n_history]),
    )
    return Batch(user, item, numbers[own], label[own])


class Batches(torch.utils.data.Dataset[Batch]):
    """`steps` global batches of which this rank of this world takes its slice."""

    def __init__(self, steps: int, rank: int, world_size: int, rows: int = 12, first: int = 0) -> None:
        self.steps, self.rows, self.first = steps, rows, first
        self.start, self.stop = rank * rows // world_size, (rank + 1) * rows // world_size

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        if step >= self.steps:
            raise IndexError(step)
        return make_batch(self.first + step, self.rows, self.start, self.stop)


class DLRM(L.LightningModule):
    """User bags (sum and mean), an item by `item_kernel`, its history averaged with attention, an MLP.

    `item_kernel`: `sequence` (EmbeddingCollection) or `bag` (EmbeddingBagCollection of bags of one).
    """

    def __init__(
        self,
        item_kernel: str = "sequence",
        lr: float = 0.05,
        optimizer: str = "adagrad",
        warmup: int = 0,
        dropout: float = 0.0,
        items: int = ITEMS,
        width: int = 16,
        device: torch.device = META,
        data_type: DataType = DataType.FP32,
    ) -> None:
        super().__init__()
        self.kernel, self.lr, self.optimizer_name, self.warmup, self.items = item_kernel, lr, optimizer, warmup, items
        self.table_device, self.data_type = device, data_type
        self.query = nn.Linear(DIM, DIM)
        self.top = nn.Sequential(
            nn.Linear(4 * DIM + NUMBERS, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 1)
        )
        self.losses: list[float] = []

    def configure_model(self) -> None:
        if hasattr(self, "bags"):
            return
        common: dict[str, Any] = {"embedding_dim": DIM, "data_type": self.data_type}
        self.bags = EmbeddingBagCollection(
            device=self.table_device,
            tables=[
                EmbeddingBagConfig(name="city", num_embeddings=CITIES, feature_names=["city"], **common),
                EmbeddingBagConfig(
                    name="tag", num_embeddings=TAGS, feature_names=["tags"], pooling=PoolingType.MEAN, **common
                ),
            ],
        )
        item: dict[str, Any] = {"name": "item", "num_embeddings": self.items, **common}
        if self.kernel == "sequence":
            config = EmbeddingConfig(feature_names=["target", "history"], **item)
            self.item = EmbeddingCollection(device=self.table_device, tables=[config])
        else:
            config = EmbeddingBagConfig(feature_names=["ids"], **item)
            self.item = EmbeddingBagCollection(device=self.table_device, tables=[config])

    def look_up(self, item: KeyedJaggedTensor) -> tuple[Tensor, Tensor, Tensor]:
        """Targets float[rows, DIM], history float[ids, DIM], history lengths int64[rows]."""
        if self.kernel == "sequence":
            found = self.item(item)
            return found["target"].values(), found["history"].values(), found["history"].lengths()
        rows = item.stride()
        ids = KeyedJaggedTensor(keys=["ids"], values=item.values(), lengths=torch.ones_like(item.values()))
        vectors = self.item(ids).values()
        return vectors[:rows], vectors[rows:], item["history"].lengths()

    def forward(self, batch: Batch) -> Tensor:
        """float[rows] logits."""
        user = self.bags(batch.user).values()  # [rows, 2 DIM]
        target, history, lengths = self.look_up(batch.item)
        row = torch.repeat_interleave(torch.arange(len(target), device=target.device), lengths)  # [ids]
        weight = (self.query(target)[row] * history).sum(1, keepdim=True).sigmoid()  # [ids, 1]
        seen = torch.zeros_like(target).index_add(0, row, weight * history)  # [rows, DIM]
        return self.top(torch.cat([user, target, seen, batch.numbers], 1)).squeeze(1)

    def loss(self, batch: Batch) -> Tensor:
        return F.binary_cross_entropy_with_logits(self(batch), batch.label)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        loss = self.loss(batch)
        self.losses.append(loss.item())
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        self.log("loss", self.loss(batch), sync_dist=True, batch_size=len(batch.label))

    test_step = validation_step

    def predict_step(self, batch: Batch, _: int) -> Tensor:
        return self(batch).sigmoid()

    def configure_optimizers(self) -> Any:
        kinds = {"adagrad": torch.optim.Adagrad, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
        optimizer = kinds[self.optimizer_name](self.parameters(), lr=self.lr)
        if not self.warmup:
            return optimizer
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / self.warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, _: int) -> Batch:
        return batch.to(device)
