"""A small DLRM with bags of user ids, a sequence of items (looked up by either kernel) and dense layers. Not CCN."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
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

DIM, CITIES, TAGS, ITEMS, NUMBERS = 8, 3, 40, 101, 3
META = torch.device("meta")
# Initial accumulator of AdaGrad. From zero, the first step would be lr * sign(gradient), which rounding decides for
# gradients near zero.
START = 1e-3


@dataclass
class Batch:
    """`user` has a bag of cities and a bag of tags per row, `item` has one target id and a history per row."""

    user: KeyedJaggedTensor
    item: KeyedJaggedTensor
    numbers: Tensor  # float32[rows, NUMBERS]
    label: Tensor  # float32[rows]
    weight: float  # of a row in this rank's loss; makes DDP's average the mean over the global batch

    def to(self, device: torch.device) -> Batch:
        user, item = self.user.to(device), self.item.to(device)
        return Batch(user, item, self.numbers.to(device), self.label.to(device), self.weight)


UNEQUAL = (12, 13, 7, 12, 8)  # rows of the global batches, in turn; not all divide by 2 or 3
SOME_EMPTY = (12, 2, 7, 1, 8)  # with 2 or 3 ranks, some ranks have no row


def make_batch(step: int, sizes: tuple[int, ...] = UNEQUAL, rank: int = 0, world_size: int = 1) -> Batch:
    """A rank's slice of the global batch of a step, which is the same for every world size."""
    rows = sizes[step % len(sizes)]
    start, stop = rank * rows // world_size, (rank + 1) * rows // world_size
    g = torch.Generator().manual_seed(1_000 + step)
    lengths = torch.randint(0, 4, (rows, 3), generator=g)  # tags, history; a bag or a history may be empty
    city = torch.randint(0, CITIES, (rows,), generator=g)
    tags = torch.randint(0, TAGS, (rows, 4), generator=g)
    target = torch.randint(0, ITEMS, (rows,), generator=g)
    history = torch.randint(0, ITEMS, (rows, 4), generator=g)
    numbers = torch.randn(rows, NUMBERS, generator=g)
    label = (torch.rand(rows, generator=g) < 0.4).float()
    own = range(start, stop)
    n_tags, n_history = lengths[own, 0], lengths[own, 1]
    one = torch.ones(len(own), dtype=torch.long)
    user = KeyedJaggedTensor(
        keys=["city", "tags"],
        values=torch.cat([city[own], *(tags[i, : lengths[i, 0]] for i in own)]).long(),
        lengths=torch.cat([one, n_tags]),
    )
    item = KeyedJaggedTensor(
        keys=["target", "history"],
        values=torch.cat([target[own], *(history[i, : lengths[i, 1]] for i in own)]),
        lengths=torch.cat([one, n_history]),
    )
    return Batch(user, item, numbers[own], label[own], world_size / rows)


class Loader:
    """This rank's slices of `steps` global batches; continues from its saved state."""

    def __init__(self, steps: int, sizes: tuple[int, ...] = UNEQUAL, first: int = 0) -> None:
        self.steps, self.sizes, self.first = steps, sizes, first
        self.position = self.resume_at = 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        rank, world_size = dist.get_rank(), dist.get_world_size()
        first, self.resume_at = self.resume_at, 0
        for step in range(first, self.steps):
            self.position = step + 1
            yield make_batch(self.first + step, self.sizes, rank, world_size)

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.resume_at = state["position"] % self.steps


class WithId(Loader):
    """Batches of which the first target is another id."""

    def __init__(self, steps: int, wrong: int) -> None:
        super().__init__(steps)
        self.wrong = wrong

    def __iter__(self) -> Iterator[Batch]:
        for batch in super().__iter__():
            batch.item.values()[0] = self.wrong
            yield batch


class Dense(nn.Module):
    """The replicated layers: attention of the target over the history, and an MLP."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.query = nn.Linear(DIM, DIM)
        self.top = nn.Sequential(
            nn.Linear(4 * DIM + NUMBERS, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 1)
        )

    def forward(self, user: Tensor, target: Tensor, history: Tensor, lengths: Tensor, numbers: Tensor) -> Tensor:
        """The logits, float[rows]."""
        row = torch.repeat_interleave(torch.arange(len(target), device=target.device), lengths)  # [ids]
        weight = (self.query(target)[row] * history).sum(1, keepdim=True).sigmoid()  # [ids, 1]
        seen = torch.zeros_like(target).index_add(0, row, weight * history)  # [rows, DIM]
        logit: Tensor = self.top(torch.cat([user, target, seen, numbers], 1))
        return logit.squeeze(1)


class DLRM(L.LightningModule):
    """Bags of user ids, a target item, its history averaged with attention, and an MLP.

    The items are in an EmbeddingCollection (`item_kernel` is `sequence`), or in an EmbeddingBagCollection that gets
    bags of one id (`bag`).
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
        tag_pooling: PoolingType = PoolingType.MEAN,
        groups: int = 1,
        strict: bool = True,
        device: torch.device = META,
        data_type: DataType = DataType.FP32,
    ) -> None:
        super().__init__()
        self.kernel, self.lr, self.optimizer_name, self.warmup, self.items = item_kernel, lr, optimizer, warmup, items
        self.table_device, self.data_type, self.tag_pooling = device, data_type, tag_pooling
        self.groups, self.strict_loading = groups, strict
        self.dense = Dense(width, dropout)
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
                    name="tag", num_embeddings=TAGS, feature_names=["tags"], pooling=self.tag_pooling, **common
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
        rows = item.stride()
        if self.kernel == "sequence":
            if not rows:  # TorchRec supports a row without ids, but not a batch without rows
                none = torch.zeros(len(item.keys()), dtype=torch.long, device=item.values().device)
                item = KeyedJaggedTensor(keys=item.keys(), values=item.values(), lengths=none)
            found = self.item(item)
            return found["target"].values(), found["history"].values(), found["history"].lengths()[:rows]
        ids = KeyedJaggedTensor(keys=["ids"], values=item.values(), lengths=torch.ones_like(item.values()))
        vectors = self.item(ids).values()
        return vectors[:rows], vectors[rows:], item["history"].lengths()

    def forward(self, batch: Batch) -> Tensor:
        """The logits, float[rows]."""
        user = self.bags(batch.user).values()  # [rows, 2 DIM]
        logit: Tensor = self.dense(user, *self.look_up(batch.item), batch.numbers)
        return logit

    def loss(self, batch: Batch) -> Tensor:
        return F.binary_cross_entropy_with_logits(self(batch), batch.label, reduction="sum") * batch.weight

    def training_step(self, batch: Batch, _: int) -> Tensor:
        loss = self.loss(batch)
        self.losses.append(loss.item())
        self.log("train_loss", loss, sync_dist=True)  # so that all ranks agree which checkpoint is best
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        self.log("loss", self.loss(batch), sync_dist=True, batch_size=len(batch.label))

    test_step = validation_step

    def predict_step(self, batch: Batch, _: int) -> Tensor:
        return self(batch).sigmoid()

    def configure_optimizers(self) -> Any:
        kinds: dict[str, Any] = {
            "adagrad": partial(torch.optim.Adagrad, initial_accumulator_value=START),
            "adam": torch.optim.Adam,
        }
        groups: Any = self.parameters()
        if self.groups == 2:
            groups = [{"params": part.parameters()} for part in (self.dense.query, self.dense.top)]
        optimizer = kinds[self.optimizer_name](groups, lr=self.lr)
        if not self.warmup:
            return optimizer
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / self.warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, _: int) -> Batch:
        return batch.to(device)
