"""A checkpoint's system, in one process and without the run's options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.identity import check_same_data, saved_numbers
from lightning_ccn.errors import OptionError
from lightning_ccn.export.one_page import GivenEmbedding, GivenWide
from lightning_ccn.models.system import Prediction, System
from lightning_ccn.nn.crosses import HashedCrosses
from lightning_ccn.nn.order_head import OrderHead
from lightning_ccn.nn.tables import PageEmbedding, tables_on
from lightning_ccn.sharding import load_unsharded, read_trainer_state
from lightning_ccn.sharding.tables import table_keys

NEEDED = ("class", "options", "reading")


class Model(nn.Module):
    """A system with the order head beside it, as `CTRModule` has them.

    Args:
        system: The system.
        order_head: Its order head, if it has one.
    """

    def __init__(self, system: System, order_head: OrderHead | None) -> None:
        super().__init__()
        self.system, self.order_head = system, order_head

    def forward(self, page: Any) -> Prediction:
        """Scores the items of a `OnePage` or a `PageBatch`."""
        prediction: Prediction = self.system(page)
        if self.order_head is not None:
            prediction.conversion = self.order_head.conversion()
        return prediction


@dataclass(frozen=True)
class Rebuilt:
    """A model whose layers have a checkpoint's weights.

    Attributes:
        model: The model, without its tables: what it looks up is given, see `one_page`.
        embedding: What `GivenEmbedding` took the place of, with tables on the meta device.
        crosses: What `GivenWide` took the place of; None in a system without crossed ids.
        reading: How many behaviours of each sequence the model was trained on.
    """

    model: Model
    embedding: PageEmbedding
    crosses: HashedCrosses | None
    reading: Mapping[str, int]

    @property
    def system(self) -> System:
        """The system of the model."""
        return self.model.system


def rebuild(checkpoint: Path, dataset: Dataset) -> Rebuilt:
    """Builds the system of a checkpoint, and loads the weights of its layers.

    Args:
        checkpoint: A complete checkpoint.
        dataset: The data that the package is made for; its numbers get the checkpoint's moments.

    Raises:
        OptionError: The checkpoint does not say how its system was built, its class is not found, or it looks something
            up elsewhere than in `PageEmbedding` and `HashedCrosses`.
        DataError: The data's rows do not mean the ids that the model was trained on.
        ShardingError: The checkpoint is not whole.
    """
    saved = read_trainer_state(checkpoint).get("ccn")
    if saved is None or any(name not in saved for name in NEEDED):
        raise OptionError(
            f"{checkpoint}: does not say how its system was built, as checkpoints of older versions do not: train it "
            "one step further with this version (ccn fit --ckpt_path), and export that checkpoint"
        )
    check_same_data(saved, dataset)
    dataset.numbers.update(saved_numbers(saved, dataset))
    system = _build(saved["class"], saved["options"], dataset)
    embeddings = [(name, module) for name, module in system.named_modules() if isinstance(module, PageEmbedding)]
    if len(embeddings) != 1:
        raise OptionError(
            f"{saved['class']}: has {len(embeddings)} PageEmbeddings, and a package is made for one: look "
            "everything up in one"
        )
    (name, embedding), crosses = embeddings[0], None
    replace_module(system, name, GivenEmbedding(embedding))
    for name, module in list(system.named_modules()):
        if isinstance(module, HashedCrosses):
            crosses = module
            replace_module(system, name, GivenWide())
    if others := table_keys(system):
        raise OptionError(
            f"{saved['class']}: looks up {', '.join(others.values())} outside PageEmbedding; a package serves its "
            "tables alone"
        )
    load_unsharded(checkpoint, system, prefix="model.")
    order_head = None
    if saved.get("order_head"):  # older checkpoints do not say
        order_head = OrderHead(system)
        load_unsharded(checkpoint, order_head, prefix="order_head.")
    return Rebuilt(Model(system, order_head).eval(), embedding, crosses, saved["reading"])


def _build(path: str, options: Mapping[str, Any], dataset: Dataset) -> System:
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise OptionError(
            f"{path}: the checkpoint's system is not found ({error}); put the folder of its module on PYTHONPATH"
        ) from None
    with torch.device("cpu"), tables_on("meta", for_device="cpu"):
        system: System = kind(dataset, **options)
    return system


def replace_module(module: nn.Module, name: str, by: nn.Module) -> None:
    """Puts a module in the place of the one at a path within another."""
    owner, _, last = name.rpartition(".")
    setattr(module.get_submodule(owner), last, by)
