"""Finds ids that are outside of their table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torchrec import KeyedJaggedTensor

from lightning_ccn.sharding.errors import ShardingError
from lightning_ccn.sharding.torchrec_private import assert_async

_ANY = torch.iinfo(torch.int64).max  # limit of a feature that the collection does not look up


class IdCheck:
    """Ends the run at an id that is outside of its table, without a wait on a GPU.

    On a GPU this finds negative ids, and fbgemm's own check, which knows the shards, the others; both are asserts on
    the device, whose error says little and comes some steps late. On the CPU the error names the id.

    Args:
        configs: The configs of a collection's tables.
    """

    def __init__(self, configs: Sequence[Any]) -> None:
        self.tables: dict[str, tuple[str, int]] = {}  # feature -> (table, rows); the smallest of its tables
        for config in configs:
            for feature in config.feature_names:
                if feature not in self.tables or config.num_embeddings < self.tables[feature][1]:
                    self.tables[feature] = (config.name, config.num_embeddings)

    def __call__(self, _: nn.Module, inputs: tuple[KeyedJaggedTensor]) -> None:
        """Checks a batch before it is looked up.

        Raises:
            ShardingError: An id is outside of its table (on the CPU).
        """
        features = inputs[0]
        ids = features.values()  # int64 [ids], feature by feature
        if ids.is_cuda:
            assert_async((ids >= 0).all(), "an id is negative")
            return
        keys = features.keys()
        rows = torch.tensor([self.tables[key][1] if key in self.tables else _ANY for key in keys])
        lengths = torch.tensor(features.length_per_key())
        limit = torch.repeat_interleave(rows, lengths, output_size=ids.numel())
        try:
            assert_async(((ids >= 0) & (ids < limit)).all(), "an id is outside of its table")
        except RuntimeError as error:
            raise ShardingError(self._words(features)) from error

    def _words(self, features: KeyedJaggedTensor) -> str:
        for key, (table, rows) in self.tables.items():
            ids = features[key].values()
            if (wrong := ids[(ids < 0) | (ids >= rows)]).numel():
                return (
                    f"feature {key!r} has the id {int(wrong[0])} ({wrong.numel()} such ids in this batch), and its "
                    f"table {table!r} has rows 0 to {rows - 1}: map the ids to rows of the table, or set "
                    "trainer.strategy.bounds_check to warning or ignore to look up row 0 instead"
                )
        raise AssertionError("the check found an id that is not there")
