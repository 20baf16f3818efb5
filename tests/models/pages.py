"""Page views for the tests of the systems: chosen pages of the fixture dataset, and small planted problems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.collate import Collator
from lightning_ccn.data.dataset import SPLITS, Dataset
from lightning_ccn.data.parquet import PageRows
from lightning_ccn.data.ragged import Ragged, take
from lightning_ccn.data.reader import PageBatches
from lightning_ccn.data.schema import Feature, Schema, Table
from lightning_ccn.data.writer import DatasetWriter, Tally
from lightning_ccn.models import CCN, CRRN, DEI2N, DIAN, DIHN, DIN, SIM, TAN, WideDeep

SYSTEMS: dict[str, Callable[..., nn.Module]] = {
    "wide_deep": partial(WideDeep, cross_rows=1_000),
    "din": DIN,
    "din_with_dice": partial(DIN, activation="dice"),
    "sim": SIM,
    "dihn": DIHN,
    "dian": DIAN,
    "tan_bare": partial(TAN, collaborative=False, trigger_interaction=False),
    "tan": TAN,
    "ccn": CCN,
    "crrn": CRRN,
    "dei2n": DEI2N,
}
OF_ITEMS = ("items", "clicks", "price")  # columns of the fixture dataset with a value an exposed item
WITHOUT_TRIGGER = ("wide_deep", "din", "din_with_dice", "sim")


def far_from_the_start(system: nn.Module) -> nn.Module:
    """The system with larger weights, away from where everything is small."""
    with torch.no_grad():
        for parameter in system.parameters():
            parameter.mul_(3)
    return system


def page_with(reader: PageBatches, at: int, order: list[int] | np.ndarray) -> PageRows:
    """Page `at` of the split with its exposed items chosen and ordered by `order`."""
    page = {name: take(column, np.array([at])) for name, column in reader.row_group(0).items()}
    for name in OF_ITEMS:
        column = page[name]
        assert isinstance(column, Ragged)
        page[name] = Ragged(column.values[order], np.array([0, len(order)]))
    return page


def longest_page(reader: PageBatches) -> int:
    items = reader.row_group(0)["items"]
    assert isinstance(items, Ragged)
    return int(items.lengths.argmax())


def scores(system: nn.Module, reader: PageBatches, rows: PageRows) -> torch.Tensor:
    with torch.no_grad():
        logit: torch.Tensor = system(reader.collator(rows)).logit
    return logit


USERS, ITEMS, CATEGORIES, SELLERS = 40, 60, 4, 4


@dataclass
class Planted:
    """Random pages of 6 items. Items have a category and a seller, users an id and a mood, 1 or 2."""

    schema: Schema
    category: np.ndarray  # of each item
    seller: np.ndarray
    user: np.ndarray  # [pages]
    mood: np.ndarray
    trigger: np.ndarray
    items: np.ndarray  # [pages, 6]
    clicks: np.ndarray
    short: np.ndarray  # [pages, behaviours]
    long: np.ndarray
    page_numbers: dict[str, np.ndarray] = field(default_factory=dict)  # [pages] each, with mean 0 and deviation 1
    lists: dict[str, Ragged] = field(default_factory=dict)  # attributes of each item with many values
    vectors: dict[str, np.ndarray] = field(default_factory=dict)  # [items, width] each
    amounts: dict[str, np.ndarray] = field(default_factory=dict)  # [items] each

    def rows(self, first: int = 0) -> PageRows:
        """Columns of page rows, numbered from `first` on; behaviours are of the second before the page."""
        page_id = first + np.arange(len(self.user))
        time = 1_700_000_000 + page_id
        lists = {"items": self.items, "clicks": self.clicks, "short_items": self.short, "long_items": self.long}
        lists |= {"short_times": (time - 1)[:, None].repeat(self.short.shape[1], 1)}
        lists |= {"long_times": (time - 1)[:, None].repeat(self.long.shape[1], 1)}
        return {
            "page_id": page_id,
            "time": time,
            "user": self.user,
            "mood": self.mood,
            "trigger": self.trigger,
            **self.page_numbers,
            **{name: Ragged.from_lengths(v.ravel(), np.full(len(v), v.shape[1])) for name, v in lists.items()},
        }

    @property
    def batch(self) -> PageBatch:
        attributes: dict[str, np.ndarray | Ragged] = {
            "category": self.category,
            "seller": self.seller,
            **self.lists,
            **self.amounts,
        }
        moments = dict.fromkeys(self.page_numbers, (0.0, 1.0))
        collator = Collator(self.schema, attributes, moments, 1_000, 1_000, self.vectors)
        return collator(self.rows())

    @property
    def dataset(self) -> Dataset:
        """What a system needs to know of these pages; there is no folder."""
        tally = Tally(self.schema)
        tally.add("train", self.rows())
        return Dataset(Path("planted"), self.schema, tally.splits, {}, {})

    def write(self, folder: Path) -> Path:
        """A dataset folder with these pages in each split."""
        with DatasetWriter(folder, self.schema) as writer:
            for number, split in enumerate(SPLITS):
                writer.write(split, self.rows(number * len(self.user)))
            return writer.close({"category": self.category, "seller": self.seller})


def planted(seed: int, pages: int = 400, short: int = 2, long: int = 3) -> Planted:
    """Pages with sequences of these lengths, clicks by chance; the items are the same for every seed."""
    rng, items = np.random.default_rng(seed), np.random.default_rng(0)
    sizes = {"user": USERS, "mood": 2, "item": ITEMS, "category": CATEGORIES, "seller": SELLERS}
    return Planted(
        schema=Schema(
            tables={name: Table(size + 1) for name, size in sizes.items()},
            user=(Feature("user", "user"), Feature("mood", "mood")),
            attributes=(Feature("category", "category"), Feature("seller", "seller")),
            category="category",
        ),
        category=np.append(0, items.integers(1, CATEGORIES + 1, ITEMS)),
        seller=np.append(0, items.integers(1, SELLERS + 1, ITEMS)),
        user=rng.integers(1, USERS + 1, pages),
        mood=rng.integers(1, 3, pages),
        trigger=rng.integers(1, ITEMS + 1, pages),
        items=rng.integers(1, ITEMS + 1, (pages, 6)),
        clicks=rng.integers(0, 2, (pages, 6)),
        short=rng.integers(1, ITEMS + 1, (pages, short)),
        long=rng.integers(1, ITEMS + 1, (pages, long)),
    )


def like_a_behaviour(pages: Planted, behaviours: np.ndarray) -> Planted:
    """Clicks on what has the category of one of the behaviours [pages, .]."""
    of_item, of_behaviour = pages.category[pages.items], pages.category[behaviours]
    return replace(pages, clicks=(of_item[:, :, None] == of_behaviour[:, None, :]).any(2))


def by_mood(pages: Planted) -> Planted:
    """Users in mood 1 come for the trigger and click its category; those in mood 2 click seller 1."""
    for_trigger = pages.category[pages.items] == pages.category[pages.trigger][:, None]
    return replace(pages, clicks=np.where(pages.mood[:, None] == 1, for_trigger, pages.seller[pages.items] == 1))


def loss(system: nn.Module, batch: PageBatch) -> torch.Tensor:
    """Cross entropy and the system's own losses, weighted."""
    assert batch.clicks is not None
    prediction = system(batch)
    total = binary_cross_entropy_with_logits(prediction.logit, batch.clicks, reduction="sum") / max(batch.items, 1)
    for value, weight in system.auxiliary_losses(prediction, batch).values():  # type: ignore[operator]
        total = total + weight * value
    return total


def learn(system: nn.Module, batch: PageBatch, steps: int = 40, lr: float = 0.02) -> None:
    """Full-batch training."""
    optimizer = torch.optim.Adam(system.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(system, batch).backward()
        optimizer.step()


def auc(logit: torch.Tensor, label: torch.Tensor | np.ndarray | None) -> float:
    return float(roc_auc_score(np.asarray(label), logit.detach().numpy()))
