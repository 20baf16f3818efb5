"""Training of the DLRM in plain PyTorch, in one process, without sharding and Lightning."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.sharding.dlrm import DLRM, START, Batch, make_batch


class Reference:
    """Trains copies of the weights of `model`, whose tables must be allocated, on global batches.

    Row-wise AdaGrad, for a row with summed gradient g (zero if it was not looked up):
    a <- a + mean(g^2), w <- w - lr g / (sqrt(a) + eps); exact AdaGrad has one accumulator per value.
    """

    def __init__(self, model: DLRM, table_optimizer: str, table_lr: float, eps: float = 1e-8) -> None:
        self.optimizer_name, self.table_lr, self.eps, self.warmup = table_optimizer, table_lr, eps, model.warmup
        item = "embeddings" if model.kernel == "sequence" else "embedding_bags"
        weights = {name: model.bags.embedding_bags[name].weight for name in ("city", "tag")}
        weights["item"] = getattr(model.item, item)["item"].weight
        self.tables = {name: w.detach().clone().requires_grad_() for name, w in weights.items()}
        self.state = {name: torch.zeros_like(self._per_row(w)) for name, w in self.tables.items()}
        self.dense = copy.deepcopy(model.dense)
        self.optimizer = torch.optim.Adagrad(self.dense.parameters(), lr=model.lr, initial_accumulator_value=START)
        self.lr, self.losses = model.lr, list[float]()
        self.pooling = model.tag_pooling.value.lower()

    def _per_row(self, values: Tensor) -> Tensor:
        return values.detach()[:, 0] if self.optimizer_name == "rowwise_adagrad" else values.detach()

    def loss(self, batch: Batch) -> Tensor:
        city, tags = batch.user["city"].values(), batch.user["tags"]
        bags = [
            self.tables["city"][city],
            F.embedding_bag(tags.values(), self.tables["tag"], tags.offsets()[:-1], mode=self.pooling),
        ]
        history = batch.item["history"]
        scored = self.dense(
            torch.cat(bags, 1),
            self.tables["item"][batch.item["target"].values()],
            self.tables["item"][history.values()],
            history.lengths(),
            batch.numbers,
        )
        return F.binary_cross_entropy_with_logits(scored, batch.label)

    def train(self, steps: int, sizes: tuple[int, ...]) -> None:
        for step in range(steps):
            share = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
            self.optimizer.param_groups[0]["lr"] = self.lr * share
            loss = self.loss(make_batch(step, sizes))
            self.optimizer.zero_grad()
            for table in self.tables.values():
                table.grad = None
            loss.backward()
            self.optimizer.step()
            for name, table in self.tables.items():
                self._update(table, self.state[name], self.table_lr * share)
            self.losses.append(loss.item())

    @torch.no_grad()
    def _update(self, table: Tensor, state: Tensor, lr: float) -> None:
        g = table.grad
        assert g is not None
        if self.optimizer_name == "sgd":
            table -= lr * g
        elif self.optimizer_name == "adagrad":
            state += g * g
            table -= lr * g / (state.sqrt() + self.eps)
        else:
            state += (g * g).mean(1)
            table -= lr * g / (state.sqrt() + self.eps)[:, None]
