"""Checkpoints load with any world size, plan and kernel, and a resumed run is exact."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torchrec.modules.embedding_configs import DataType

from lightning_ccn.sharding import TorchRecStrategy, load_unsharded, read_manifest, sharded_rows
from tests.sharding.dlrm import DLRM, Loader, make_batch
from tests.sharding.ranks import on_ranks
from tests.sharding.runs import fit, fitted, make_model, make_trainer, own_part, put_together, refusal

ROW = {"tag": "row_wise", "item": "row_wise"}
TABLE = {"city": "table_wise", "tag": "table_wise", "item": "table_wise"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps on two ranks, with a checkpoint after each of steps 2 and 4: tests must not change them."""
    folder = tmp_path_factory.mktemp("run")
    fitted(2, folder, steps=4, strategy={"plan": ROW}, trainer={"save_every": 2})
    return folder


def test_a_run_on_1_2_3_and_1_ranks_equals_the_run_on_1_rank(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 7}  # per epoch: the run stops within an epoch, and continues into the next one
    model = {"warmup": 5}
    epochs = {"max_epochs": 2, "save_every": 3}
    whole = fitted(1, tmp_path / "whole", **settings, model=model, trainer=epochs, crash_after=12)
    losses: list[float] = []
    ckpt_path = None
    legs = [(1, 3, "sequence", TABLE), (2, 6, "bag", ROW), (3, 9, "sequence", TABLE), (1, 12, "bag", ROW)]
    for world_size, stop, kernel, plan in legs:
        part = fitted(
            world_size,
            tmp_path,
            **settings,
            model=model | {"item_kernel": kernel},
            strategy={"plan": plan},
            trainer=epochs,
            ckpt_path=ckpt_path,
            crash_after=stop,
        )
        ckpt_path = str(tmp_path / f"step={stop}.ckpt")
        losses += part.losses
    torch.testing.assert_close(losses, whole.losses, rtol=0, atol=1e-5)
    assert part.state.keys() == whole.state.keys()
    for key, value in whole.state.items():
        assert (part.state[key] - value).abs().max() <= 1e-5, key


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
@pytest.mark.parametrize("optimizer", ["adagrad", "adam"])
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    tmp_path: Path, world_size: int, optimizer: str, background: bool
) -> None:
    settings: dict[str, Any] = {
        "steps": 4,
        "model": {"warmup": 5, "dropout": 0.3, "optimizer": optimizer},
        "strategy": {"plan": ROW, "background_saves": background},
    }
    epochs = {"max_epochs": 2, "save_every": 3}
    whole = fitted(world_size, tmp_path / "whole", **settings, trainer=epochs)
    fitted(world_size, tmp_path / "part", **settings, trainer=epochs, crash_after=3)
    last = str(tmp_path / "part" / "step=3.ckpt")
    rest = fitted(world_size, tmp_path / "part", **settings, trainer=epochs, ckpt_path=last)
    assert len(whole.losses) == 8
    assert rest.losses == whole.losses[3:]
    assert all(torch.equal(rest.state[key], value) for key, value in whole.state.items())


def test_the_manifest_lists_the_content_of_a_checkpoint(run: Path) -> None:
    manifest = read_manifest(run / "step=4.ckpt")
    assert manifest["global_step"] == 4
    assert manifest["world_size"] == 2
    assert manifest["plan"] == {"city": "table_wise:1", "tag": "row_wise", "item": "row_wise"}
    assert manifest["tensors"]["tables.item.weight"] == {"dtype": "float32", "shape": [101, 8]}
    assert manifest["tensors"]["tables.item.optimizer.momentum1"] == {"dtype": "float32", "shape": [101]}
    assert "torchrec" in manifest["versions"]


def fit_in_blocks(block_bytes: int, **settings: Any) -> dict[str, Any]:
    """`fit`, with checkpoints whose tables are split into blocks of a few rows."""
    usual, sharded_rows.BLOCK_BYTES = sharded_rows.BLOCK_BYTES, block_bytes
    try:
        return fit(**settings)
    finally:
        sharded_rows.BLOCK_BYTES = usual


def test_tables_of_many_blocks_load_into_any_plan(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"strategy": {"plan": ROW}, "trainer": {"save_every": 4}, "steps": 4}
    results = on_ranks(3, fit_in_blocks, block_bytes=100, folder=str(tmp_path), **settings)
    saved = put_together(results).state
    ((_, part),) = on_ranks(1, validate, folder=str(tmp_path), model={}, ckpt_path=str(tmp_path / "step=4.ckpt"))
    loaded = put_together([part]).state
    assert all(torch.equal(loaded[key], saved[key]) for key in loaded if key.startswith("tables.") and "opt" not in key)


def predictions(model: DLRM) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model.eval()(make_batch(step)) for step in range(3)])


@pytest.mark.parametrize("kernel", ["sequence", "bag"])
@pytest.mark.parametrize("on_meta", [True, False], ids=["meta", "cpu"])
def test_load_unsharded_predicts_like_the_sharded_model(tmp_path: Path, kernel: str, on_meta: bool) -> None:
    outcome = fitted(3, tmp_path, steps=4, strategy={"plan": ROW}, trainer={"save_every": 4})
    model = make_model(on_meta=on_meta, item_kernel=kernel)
    if torch.distributed.is_initialized():  # by an earlier test
        torch.distributed.destroy_process_group()
    load_unsharded(tmp_path / "step=4.ckpt", model)
    assert not torch.distributed.is_initialized()
    plain = make_model(on_meta=False)
    plain.load_state_dict(
        {
            name: outcome.state.get(f"tables.{name.split('.')[-2]}.weight", outcome.state.get(f"module.{name}"))
            for name in plain.state_dict()
        }
    )
    assert torch.equal(predictions(model), predictions(plain))
    part = make_model(item_kernel=kernel).dense
    load_unsharded(tmp_path / "step=4.ckpt", part, prefix="dense.")
    assert torch.equal(part.query.weight, model.dense.query.weight)


def test_half_precision_tables_load_into_single_precision(tmp_path: Path) -> None:
    half = {"data_type": DataType.FP16}
    saved = fitted(2, tmp_path, model=half, steps=2, strategy={"plan": ROW}, trainer={"save_every": 2})
    model = load_unsharded(tmp_path / "step=2.ckpt", make_model())
    assert isinstance(model, DLRM)
    assert model.item.embeddings["item"].weight.dtype == torch.float32
    assert torch.equal(model.item.embeddings["item"].weight, saved.state["tables.item.weight"])


def test_a_run_resumes_with_tables_of_another_precision(tmp_path: Path) -> None:
    single, half = ({"data_type": kind} for kind in (DataType.FP32, DataType.FP16))
    settings: dict[str, Any] = {"steps": 4, "strategy": {"plan": ROW}}
    saved = fitted(2, tmp_path, **settings, model=half, trainer={"save_every": 2})
    dtypes = {key: entry["dtype"] for key, entry in read_manifest(tmp_path / "step=2.ckpt")["tensors"].items()}
    assert dtypes["tables.item.weight"] == "float16" and dtypes["tables.item.optimizer.momentum1"] == "float32"
    resumed = fitted(2, tmp_path, **settings, model=single, ckpt_path=str(tmp_path / "step=2.ckpt"))
    torch.testing.assert_close(resumed.losses, saved.losses[2:], rtol=0, atol=1e-3)
    whole = fitted(2, tmp_path / "single", **settings, model=single)
    torch.testing.assert_close(saved.losses, whole.losses, rtol=0, atol=1e-3)
    assert saved.losses != whole.losses


def test_a_checkpoint_of_another_model_is_explained_field_by_field(run: Path, tmp_path: Path) -> None:
    message = refusal(tmp_path, 2, model={"items": 120, "width": 20}, ckpt_path=str(run / "step=4.ckpt"))
    assert "table 'item': rows differ, 120 here, 101 in the checkpoint" in message
    assert "dense.top.0.weight: 20 x 35 here, 16 x 35 in the checkpoint" in message
    assert "table 'city'" not in message


def test_missing_and_surplus_entries_are_all_listed(run: Path) -> None:
    class Other(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query = torch.nn.Linear(8, 8)
            self.bonus = torch.nn.Linear(2, 2)

    with pytest.raises(ValueError, match=r"bonus.bias: missing in the checkpoint; here 2\n.*bonus.weight"):
        load_unsharded(run / "step=4.ckpt", Other(), prefix="dense.")


def validate(folder: str, model: dict[str, Any], ckpt_path: str) -> tuple[list[str], dict[str, Any]]:
    """On one rank: load a checkpoint for validation; the warnings, and `own_part` afterwards."""
    module = make_model(**model)
    trainer = make_trainer(folder, TorchRecStrategy())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.validate(module, Loader(2), ckpt_path=ckpt_path, verbose=False)
    return [str(warning.message) for warning in caught], own_part(trainer, module)


def test_without_strict_loading_mismatches_give_a_warning_and_keep_their_values(run: Path, tmp_path: Path) -> None:
    model = {"items": 120, "strict": False}
    settings = {"folder": str(tmp_path), "model": model, "ckpt_path": str(run / "step=4.ckpt")}
    ((said, loaded),) = on_ranks(1, validate, **settings)
    assert any("table 'item': rows differ, 120 here, 101 in the checkpoint" in line for line in said)
    state = put_together([loaded]).state
    fresh = fitted(1, tmp_path, model=model, trainer={"limit_train_batches": 0}).state
    assert torch.equal(state["tables.item.weight"], fresh["tables.item.weight"])
    assert not torch.equal(state["tables.tag.weight"], fresh["tables.tag.weight"])


def test_resuming_with_another_table_optimizer_is_rejected(run: Path, tmp_path: Path) -> None:
    message = refusal(tmp_path, strategy={"table_optimizer": "sgd"}, ckpt_path=str(run / "step=4.ckpt"))
    assert "table_optimizer is sgd here and rowwise_adagrad in checkpoint" in message


def test_resuming_with_another_rate_of_the_tables_is_rejected(run: Path, tmp_path: Path) -> None:
    message = refusal(tmp_path, strategy={"table_lr": 0.5}, ckpt_path=str(run / "step=4.ckpt"))
    assert "table_lr is 0.5 here and 0.05 in checkpoint" in message


def test_resuming_with_another_rate_of_the_layers_is_rejected(tmp_path: Path) -> None:
    scheduled: dict[str, Any] = {"steps": 2, "trainer": {"save_every": 2}}
    fitted(1, tmp_path, **scheduled, model={"warmup": 5})
    message = refusal(tmp_path, model={"warmup": 5, "lr": 0.5}, ckpt_path=str(tmp_path / "step=2.ckpt"))
    assert "the layers' learning rate is 0.5 here and 0.05 in checkpoint" in message


def test_resuming_with_other_parameter_groups_is_rejected(run: Path, tmp_path: Path) -> None:
    message = refusal(tmp_path, model={"groups": 2}, ckpt_path=str(run / "step=4.ckpt"))
    assert "group 1: dense.top.0.weight" in message
    assert "none in the checkpoint" in message


def test_a_broken_checkpoint_is_not_loaded(run: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.ckpt"
    shutil.copytree(run / "step=4.ckpt", broken)
    shard = broken / "__1_0.distcp"
    shard.write_bytes(shard.read_bytes()[:-1])
    message = refusal(tmp_path, 2, ckpt_path=str(broken))
    assert "__1_0.distcp has" in message
    assert str(broken) in message
