"""From rows of tables to the inputs of a package's graph."""

from __future__ import annotations

import numpy as np

from lightning_ccn.data.ragged import Ragged, rows_of
from lightning_ccn.data.search import HardSearch
from lightning_ccn.data.splitmix64 import splitmix64
from lightning_ccn.serving.manifest import FeatureEntry
from lightning_ccn.serving.package import Package
from lightning_ccn.serving.request import Rows


class GraphInputs:
    """Looks up, searches and pads what one request needs.

    The user, the trigger and the sequences are looked up once, whatever the number of candidates, and each distinct
    item once.

    Args:
        package: The opened package.
    """

    def __init__(self, package: Package) -> None:
        self._package, self._manifest = package, package.manifest
        category = self._manifest.category
        if category is None:
            self._search = HardSearch(None, 0)
        else:
            table = next(feature.table for feature in self._manifest.item if feature.name == category)
            self._search = HardSearch(package.attributes[category], self._manifest.tables[table].rows)

    def __call__(self, rows: Rows) -> dict[str, np.ndarray]:
        """The inputs by name, with the shapes and in the order of `export.one_page.OnePage`, as graphs are compiled."""
        manifest, items = self._manifest, len(rows.items)
        short = rows.short[-manifest.short_length :]
        found = self._search(
            Ragged.from_lengths(rows.long, np.array([len(rows.long)])) if manifest.reads_long else _NO_BEHAVIOURS,
            rows.items,
            np.zeros(items, np.int64),
            np.array([rows.trigger]),
            manifest.long_length,
        )
        long = rows.long[found.place] if manifest.reads_long else rows.long[:0]
        distinct, place = np.unique(np.concatenate([rows.items, [rows.trigger], short, long]), return_inverse=True)
        target, trigger, short_at, long_at = np.split(place, np.cumsum([items, 1, len(short)]))
        inputs = {
            "user": self._user(rows),
            "item": self.items(distinct),
            "target": target,
            "trigger": trigger,
            "short": short_at if len(short) else np.zeros(1, np.int64),
            "short_lengths": np.array([len(short)]),
            "long": _rectangle(long_at, found.lengths),
            "long_lengths": found.lengths,
            "target_group": found.target_group,
            "trigger_group": found.trigger_group,
            "numbers": self._numbers(rows),
        }
        if self._package.vectors:
            inputs["vectors"] = np.concatenate([vectors[distinct] for vectors in self._package.vectors], 1)
        if self._package.crosses is not None:
            inputs["wide"] = self._wide(rows, self._package.crosses)
        if (times := rows.times) is not None:
            of_short, of_long = times.gaps(times.short[-manifest.short_length :]), times.gaps(times.long[found.place])
            (inputs["short_gap"],) = _rectangle(of_short, inputs["short_lengths"])
            inputs["long_gap"] = _rectangle(of_long, found.lengths)
        return {
            name: np.ascontiguousarray(value, np.float32 if value.dtype.kind == "f" else np.int64)
            for name, value in inputs.items()
        }

    def _user(self, rows: Rows) -> np.ndarray:
        """E_user: float32 [1, user_dim]."""
        parts = [
            self._package.tables[feature.stored](values).sum(0)
            for feature, values in zip(self._manifest.user, rows.user, strict=True)
        ]
        return np.concatenate([*parts, rows.page_numbers])[None].astype(np.float32)

    def items(self, rows: np.ndarray) -> np.ndarray:
        """The embeddings of items, for rows of the item table: float32 [n, the items' tables]."""
        return np.concatenate([self._of_feature(feature, rows) for feature in self._manifest.item], 1)

    def _of_feature(self, feature: FeatureEntry, items: np.ndarray) -> np.ndarray:
        """The vectors of one item feature: float32 [n, dim]."""
        table = self._package.tables[feature.stored]
        if not feature.many:
            return table(self._values(feature.name, items))
        lists = rows_of(self._package.attribute_lists[feature.name], items)
        vectors = table(lists.values)
        sums = np.zeros((len(items), vectors.shape[1]), np.float32)
        np.add.at(sums, np.repeat(np.arange(len(items)), lists.lengths), vectors)
        return sums

    def _values(self, feature: str, items: np.ndarray) -> np.ndarray:
        """The value of an item feature, for rows of the item table: int64 [n]."""
        if feature == self._manifest.item[0].name:
            return items
        return self._package.attributes[feature][items].astype(np.int64)

    def _numbers(self, rows: Rows) -> np.ndarray:
        """Float32 [items, number_dim]: the numbers, and what each candidate has in common with the trigger."""
        columns = []
        for name in self._manifest.same_as_trigger:
            of_target, of_trigger = self._values(name, rows.items), self._values(name, np.array([rows.trigger]))
            columns.append((of_target == of_trigger) & (of_target != 0))
        for values in self._package.ratios:
            columns.append(np.nan_to_num(np.log(values[rows.items]) - np.log(values[rows.trigger])))
        return np.concatenate([rows.numbers, *(column[:, None] for column in columns)], 1).astype(np.float32)

    def _wide(self, rows: Rows, weights: np.ndarray) -> np.ndarray:
        """The wide part's logit, see `nn.crosses`: float32 [items]."""
        single = [values for f, values in zip(self._manifest.user, rows.user, strict=True) if not f.many]
        of_page = np.concatenate(single)  # [profile features]
        of_item = np.stack(
            [self._values(f.name, rows.items) for f in self._manifest.item if not f.many], 1
        )  # [items, .]
        pair = (splitmix64(of_page)[None, :, None] + of_item[:, None, :]).reshape(len(of_item), -1)
        crossing = np.arange(pair.shape[1])
        at = 1 + splitmix64(splitmix64(pair) + crossing) % (len(weights) - 1)
        summed: np.ndarray = weights[at].sum(1)
        return summed


_NO_BEHAVIOURS = Ragged(np.zeros(0, np.int64), np.zeros(2, np.int64))


def _rectangle(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Ragged rows side by side: int64 [rows, the longest, at least 1], zeros after the end of a row."""
    seen = np.arange(max(int(lengths.max(initial=0)), 1)) < lengths[:, None]
    padded = np.zeros(seen.shape, np.int64)
    padded[seen] = values
    return padded
