"""A model of another library as a contestant. Runs in the peers' environment, without lightning_ccn.

The feed is in memory, as the tensors that the model takes, so a peer's reader costs it nothing. A step is the library's
own: its training loop where it has one that takes batches, else its model, loss and optimizer in a plain loop.

python -m benchmarks.peers PIPE CLOCK THREADS MODEL ACTIVATION FEED MODEL_ZOO
"""

from __future__ import annotations

import importlib.util
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from benchmarks.turns import Turns

DIM, HEAD, UNIT, HEADS, LR = 16, [200, 80], [36], 4, 0.02
FEATURES = ("item", "category", "seller")
INSTANCES = 1_020  # of a batch, as ours: 102 pages of 10 items

Array = np.ndarray
Batch = Any  # what a library's model takes
Train = Callable[[Sequence[Batch]], object]


class Feed:
    """The instances of all batches.

    Args:
        path: File of arrays, see `pages.feed`.
    """

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self.arrays = {name: file[name] for name in file.files}
        self.rows = {"user": int(self.arrays["user"].max()) + 1, "item": len(self.arrays["category"])}
        self.rows |= {name: int(self.arrays[name].max()) + 1 for name in ("category", "seller")}

    def __len__(self) -> int:
        return len(self.arrays["user"]) // INSTANCES

    def batch(self, number: int) -> dict[str, Array]:
        """user, target, click, short, long of one batch."""
        rows = slice(number * INSTANCES, (number + 1) * INSTANCES)
        return {name: self.arrays[name][rows] for name in ("user", "target", "click", "short", "long")}

    def features(self, items: Array) -> dict[str, Array]:
        """The three features of items, of any shape."""
        return {"item": items, **{name: self.arrays[name][items] for name in FEATURES[1:]}}


def fuxictr(feed: Feed, activation: str, zoo: Path, name: str) -> tuple[Train, list[Batch]]:
    """FuxiCTR's DIN over the short sequence, or SIM over the long one, which ends with the short one."""
    from fuxictr.features import FeatureMap  # type: ignore[import-not-found]

    features = FeatureMap("made_up", "unused")
    features.labels, features.default_emb_dim = ["click"], DIM
    kinds = {"user": "user", **dict.fromkeys(FEATURES, "item")}
    features.features = OrderedDict(
        (feature, {"source": source, "type": "categorical", "vocab_size": feed.rows[feature], "padding_idx": 0})
        for feature, source in kinds.items()
    )
    alike = {
        "embedding_dim": DIM,
        "dnn_hidden_units": HEAD,
        "learning_rate": LR,
        "optimizer": "Adagrad",
        "loss": "binary_crossentropy",
    }
    needed = {"verbose": 0, "model_root": "unused", "metrics": ["AUC"]}
    own: dict[str, Any] = {"attention_hidden_units": UNIT, "attention_hidden_activations": activation}
    if name == "SIM":
        own = {
            "attention_dim": len(FEATURES) * DIM,
            "num_heads": HEADS,
            "topk": 50,
            "short_seq_len": 51,
        }  # the 51st: target
    model = getattr(_load(zoo / "LongCTR" / name / f"{name}.py"), name)(features, **alike, **needed, **own)
    # what its `fit` sets before it calls `train_epoch`
    model._max_gradient_norm, model._eval_steps, model._total_steps, model._stop_training = 10.0, 10**9, 0, False
    batches = []
    for number in range(len(feed)):
        batch = feed.batch(number)
        sequence = batch["short" if name == "DIN" else "long"]
        items = np.concatenate([sequence, batch["target"][:, None]], axis=1).reshape(-1)
        item = {feature: torch.from_numpy(values).long() for feature, values in feed.features(items).items()}
        page = {"user": torch.from_numpy(batch["user"]).long(), "click": torch.from_numpy(batch["click"]).float()}
        batches.append((page, item, torch.ones(sequence.shape)))
    return model.train_epoch, batches


def torch_rechub(feed: Feed, activation: str) -> tuple[Train, list[Batch]]:
    """torch-rechub's DIN: an activation unit for each of the three features."""
    from torch_rechub.basic.features import SequenceFeature, SparseFeature  # type: ignore[import-not-found]
    from torch_rechub.models.ranking.din import DIN  # type: ignore[import-not-found]
    from torch_rechub.trainers import CTRTrainer  # type: ignore[import-not-found]

    model = DIN(
        features=[SparseFeature("user", feed.rows["user"], DIM)],
        history_features=[
            SequenceFeature(f"short_{name}", feed.rows[name], DIM, pooling="concat", shared_with=name)
            for name in FEATURES
        ],
        target_features=[SparseFeature(name, feed.rows[name], DIM) for name in FEATURES],
        mlp_params={"dims": HEAD},
        attention_mlp_params={"dims": UNIT, "activation": activation},
    )
    trainer = CTRTrainer(model, optimizer_fn=torch.optim.Adagrad, optimizer_params={"lr": LR})
    batches = []
    for number in range(len(feed)):
        batch = feed.batch(number)
        short = {f"short_{name}": values for name, values in feed.features(batch["short"]).items()}
        columns = {"user": batch["user"], **feed.features(batch["target"]), **short}
        tensors = {name: torch.from_numpy(values).long() for name, values in columns.items()}
        batches.append((tensors, torch.from_numpy(batch["click"]).float()))
    return trainer.train_one_epoch, batches


def deepctr_torch(feed: Feed, activation: str) -> tuple[Train, list[Batch]]:
    """DeepCTR-Torch's DIN, whose `fit` takes arrays only: its model, loss and optimizer in a plain loop."""
    from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat  # type: ignore[import-not-found]
    from deepctr_torch.models import DIN  # type: ignore[import-not-found]

    length = feed.arrays["short"].shape[1]
    columns: list[Any] = [SparseFeat("user", feed.rows["user"], DIM)]
    columns += [SparseFeat(name, feed.rows[name], DIM) for name in FEATURES]
    columns += [
        VarLenSparseFeat(
            SparseFeat(f"hist_{name}", feed.rows[name], DIM, embedding_name=name), length, length_name="length"
        )
        for name in FEATURES
    ]
    model = DIN(
        columns,
        list(FEATURES),
        dnn_hidden_units=tuple(HEAD),
        att_hidden_size=tuple(UNIT),
        att_activation=activation,
        l2_reg_embedding=0.0,
    )
    model.compile(torch.optim.Adagrad(model.parameters(), lr=LR), "binary_crossentropy")
    batches = []
    for number in range(len(feed)):
        batch = feed.batch(number)
        short = {f"hist_{name}": values for name, values in feed.features(batch["short"]).items()}
        values = {"user": batch["user"], **feed.features(batch["target"]), **short}
        values["length"] = np.full(INSTANCES, length)
        matrix = np.concatenate([values[name].reshape(INSTANCES, -1) for name in model.feature_index], axis=1)
        batches.append((torch.from_numpy(matrix).float(), torch.from_numpy(batch["click"]).float()))

    def train(batches: Sequence[Batch]) -> None:
        model.train()
        for inputs, clicks in batches:
            loss = model.loss_func(model(inputs).squeeze(-1), clicks, reduction="sum")
            loss = (loss + model.get_regularization_loss() + model.aux_loss).sum()
            model.optim.zero_grad()
            loss.backward()
            model.optim.step()

    return train, batches


def _load(path: Path) -> ModuleType:
    """A module of FuxiCTR's `model_zoo`, which is in its source distribution and not in its package."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def _size(value: Any) -> int:
    """Bytes of all tensors in a batch."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    parts = value.values() if isinstance(value, dict) else value
    return sum(map(_size, parts))


def main() -> None:
    """Trains a model in turns."""
    pipe, clock, threads, model, activation, path, zoo = sys.argv[1:]
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    turns = Turns(int(pipe), clock)  # type: ignore[arg-type]
    feed = Feed(Path(path))
    make: dict[str, Callable[[], tuple[Train, list[Batch]]]] = {
        "fuxictr_din": lambda: fuxictr(feed, activation, Path(zoo), "DIN"),
        "fuxictr_sim": lambda: fuxictr(feed, activation, Path(zoo), "SIM"),
        "rechub_din": lambda: torch_rechub(feed, activation),
        "deepctr_din": lambda: deepctr_torch(feed, activation),
    }
    train, batches = make[model]()
    feed.arrays.clear()
    train(batches[:2])  # allocates and warms up
    left = cycle(batches)
    for _, arguments in turns.ready(threads=torch.get_num_threads(), feed_mib=_size(batches) / 2**20):
        chosen = list(islice(left, arguments["steps"]))
        start = turns.now()
        train(chosen)
        turns.answer(seconds=turns.now() - start, items=INSTANCES * len(chosen), steps=len(chosen))


if __name__ == "__main__":
    main()
