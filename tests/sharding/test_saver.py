"""The thread of a background save works on the GPU of its rank."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from lightning_ccn.sharding.saver import Saver
from tests.sharding.ranks import on_ranks


def devices_set(folder: Path, background: bool) -> list[tuple[bool, Any]]:
    """Saves on GPU 3, so to speak: whether it was in the main thread, and the device, of each call of set_device."""
    dist.init_process_group("gloo", rank=0, world_size=1)
    group = dist.group.WORLD
    assert group is not None
    found: list[tuple[bool, Any]] = []
    about = {"epoch": 0, "global_step": 0, "world_size": 1, "table_optimizer": "sgd", "plan": {}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch.cuda,
            "set_device",
            lambda device: found.append((threading.current_thread() is threading.main_thread(), str(device))),
        )
        saver = Saver(group, background, "raise", torch.device("cuda", 3))
        saver.save(folder / "last.ckpt", {"module.w": torch.zeros(2)}, {}, about)
        saver.wait()
    return found


@pytest.mark.parametrize(("background", "expected"), [(True, [(False, "cuda:3")]), (False, [])])
def test_a_thread_that_saves_takes_the_gpu_of_its_rank(
    background: bool, expected: list[tuple[bool, str]], tmp_path: Path
) -> None:
    assert on_ranks(1, devices_set, folder=tmp_path, background=background) == [expected]
    assert (tmp_path / "last.ckpt" / "checkpoint.json").exists()
