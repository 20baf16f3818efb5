"""Two ranks that share one GPU, over gloo, since NCCL wants a GPU for each rank."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import patch

import pytest
from lightning.pytorch.strategies import DDPStrategy

from tests.gpu.conftest import needs_gpu
from tests.gpu.runs import Run, fit, run, saving_every, words_of_fit
from tests.sharding.ranks import on_ranks

STEPS = ["--trainer.max_steps", "12"]


def run_as_a_node(words: list[str]) -> int:
    """`ccn WORDS` on a rank of `on_ranks`, as the only rank of a node: each node's first GPU is the same one."""
    node = {"NODE_RANK": os.environ["LOCAL_RANK"], "LOCAL_RANK": "0"}
    with (
        patch.dict(os.environ, node),
        patch.object(DDPStrategy, "_get_process_group_backend", lambda strategy: "gloo"),
    ):
        return run(words)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("placed", ["row_wise", "table_wise"])
def test_two_ranks_on_a_gpu_train_as_one(world: Path, tmp_path: Path, placed: str) -> None:
    start = fit(tmp_path, "start", world, "cpu", "--trainer.max_steps", "3", *saving_every(2)).checkpoint(2)
    same = [*STEPS, "--ckpt_path", str(start)]
    one = fit(tmp_path, "one", world, "gpu", *same)
    plan = f"{{user: {placed}, item: {placed}}}"
    for ahead in ("true", "false"):
        options = ["--trainer.num_nodes", "2", "--trainer.strategy.plan", plan]
        options += ["--trainer.strategy.exchange_ahead", ahead]
        words = words_of_fit(tmp_path, f"two-{ahead}", world, "gpu", *same, *options)
        assert on_ranks(2, run_as_a_node, words=words) == [0, 0]
        two = Run(tmp_path / "gpu" / f"two-{ahead}")
        assert list(two.losses.values()) == pytest.approx(list(one.losses.values()), abs=1e-3)
        assert two.losses.keys() == one.losses.keys()
