"""Values of options that cannot be right are refused before any work starts, in one line that names the option."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
from jsonargparse import Namespace

from lightning_ccn.cli import main
from lightning_ccn.data.datamodule import PageData
from lightning_ccn.errors import CCNError, OptionError
from lightning_ccn.module import CTRModule
from lightning_ccn.sharding import ShardingError
from lightning_ccn.training.option_checks import check_options, check_writable
from lightning_ccn.training.parsers import TrainerParser
from lightning_ccn.training.run_options import add_run_options

Parse = Callable[..., Namespace]


@pytest.fixture(scope="module")
def parse(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Parse:
    """Parses words as the options of a fit on the session's dataset. The parser is made once, which is slow."""
    parser = TrainerParser()
    parser.add_lightning_class_args(L.Trainer, "trainer")
    parser.add_lightning_class_args(CTRModule, "model")
    parser.add_lightning_class_args(PageData, "data")
    parser.add_argument("--seed_everything", type=bool | int, default=0)
    add_run_options(parser)
    place = ["--data.folder", str(dataset), "--runs", str(tmp_path_factory.mktemp("runs")), "--data.batch_pages", "16"]
    place += ["--trainer.accelerator", "cpu"]

    def parsed(*words: str, command: str = "fit") -> Namespace:
        options: Namespace = parser.parse_args([*place, *words])
        check_options(options, command)
        return options

    return parsed


STRATEGY, SYSTEM = "trainer.strategy.init_args", "model.system.init_args"
REFUSED = [
    ("--model.lr -1", "model.lr is -1.0: it must be above 0"),
    ("--model.lr 0", "model.lr is 0.0: it must be above 0"),
    ("--model.final_lr -1", "model.final_lr is -1.0: it must be 0 or more"),
    ("--model.initial_accumulator -1", "model.initial_accumulator is -1.0"),
    ("--model.listwise_weight -1", "model.listwise_weight is -1.0"),
    ("--model.system.dim 0", f"{SYSTEM}.dim is 0: it must be 1 or more"),
    ("--model.system.dim -8", f"{SYSTEM}.dim is -8"),
    ("--model.system.heads 0", f"{SYSTEM}.heads is 0"),
    ("--model.system.hidden [64,0]", f"{SYSTEM}.hidden has 0"),
    ("--model.system.hidden []", f"{SYSTEM}.hidden is []"),
    ("--model.system.temperature 0", f"{SYSTEM}.temperature is 0.0: it must be above 0"),
    ("--model.system.contrast_weight -1", f"{SYSTEM}.contrast_weight is -1.0"),
    ("--trainer.strategy.table_lr -1", f"{STRATEGY}.table_lr is -1.0: it must be 0 or more"),
    ("--trainer.strategy.table_eps 0", f"{STRATEGY}.table_eps is 0.0: it must be above 0"),
    ("--trainer.strategy.timeout_seconds -1", f"{STRATEGY}.timeout_seconds is -1.0"),
    ("--trainer.strategy.table_optimizer adam", "table_optimizer='adam': use one of rowwise_adagrad, adagrad, sgd"),
    ("--data.workers -1", "data.workers is -1: it must be 0 or more"),
    ("--data.short_length -1", "data.short_length is -1"),
    ("--data.long_length -1", "data.long_length is -1"),
    ("--data.lanes 0", "data.lanes is 0: it must be 1 or more"),
    ("--data.batch_pages 0", "data.batch_pages is 0"),
    ("--data.seed -1", "data.seed is -1"),
    ("--seed_everything -1", "seed_everything is -1: it must be from 0 to 4294967295"),
    ("--seed_everything 99999999999", "seed_everything is 99999999999"),
    ("--save_every -1", "save_every is -1.0"),
    ("--trainer.devices 0", "trainer.devices is 0: it must be auto, or a number of ranks from 1"),
    ("--trainer.devices -3", "trainer.devices is -3"),
    ("--trainer.devices x", "trainer.devices is x"),
    ("--trainer.devices []", "trainer.devices is []"),
    ("--trainer.devices 0,1", "trainer.devices is 0,1"),
    ("--trainer.num_nodes 0", "trainer.num_nodes is 0"),
    ("--trainer.val_check_interval 1000", "has only 6 steps of data.batch_pages 16"),
    ("--trainer.val_check_interval 3 --trainer.limit_train_batches 2", "has only 2 steps"),
    ("--trainer.val_check_interval 0", "trainer.val_check_interval is 0: a number of steps must be 1 or more"),
    ("--trainer.val_check_interval 1.5", "trainer.val_check_interval is 1.5: it must be a share of an epoch"),
    ("--trainer.check_val_every_n_epoch 0", "trainer.check_val_every_n_epoch is 0"),
    ("--trainer.log_every_n_steps -1", "trainer.log_every_n_steps is -1"),
    ("--trainer.limit_train_batches 1.5", "trainer.limit_train_batches is 1.5: it must be a number of batches"),
    ("--output scores", "--output scores: only `ccn predict` writes there; --runs, --experiment and --run_id name"),
    ("--trainer.limit_val_batches -2", "trainer.limit_val_batches is -2"),
    ("--trainer.limit_train_batches 0", "trainer.limit_train_batches is 0: nothing would be trained"),
    ("--trainer.max_epochs 0", "trainer.max_epochs is 0: nothing would be trained"),
    ("--trainer.max_epochs -2", "trainer.max_epochs is -2: it must be -1 or more"),
    ("--trainer.max_steps -2", "trainer.max_steps is -2"),
    ("--trainer.min_epochs 5", "trainer.min_epochs is 5: it is more than trainer.max_epochs, 1"),
    ("--model.freeze [item,head]", "model.freeze is [item,head]: without a checkpoint, these would stay at the random"),
    ("--trainer.accumulate_grad_batches 0", "trainer.accumulate_grad_batches is 0"),
    ("--trainer.gradient_clip_val -1", "trainer.gradient_clip_val is -1"),
    ("--trainer.num_sanity_val_steps -2", "trainer.num_sanity_val_steps is -2"),
    ("--trainer.barebones true", "trainer.barebones is true: a run keeps a log and checkpoints"),
    ("--trainer.use_distributed_sampler true", "trainer.use_distributed_sampler is true"),
    ("--checkpoint.save_top_k -2", "checkpoint.save_top_k is -2"),
    ("--checkpoint.filename a/b", "checkpoint.filename is 'a/b': it must be the name of one file"),
    ("--run_id a/b", "run_id is 'a/b'"),
    ("--run_id ..", "run_id is '..'"),
    ("--experiment ../x", "experiment is '../x': it must be a folder within --runs"),
    ("--runs /proc/x", "/proc/x/default: cannot be written to"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[words for words, _ in REFUSED])
def test_a_value_that_cannot_be_right_is_refused_in_one_line(parse: Parse, words: str, message: str) -> None:
    with pytest.raises((CCNError, ShardingError)) as caught:
        parse(*words.split())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        "--trainer.val_check_interval 6",
        "--trainer.val_check_interval 0.5",
        "--trainer.val_check_interval 1000 --trainer.check_val_every_n_epoch null",
        "--trainer.val_check_interval 1000 --trainer.limit_val_batches 0",
        "--trainer.log_every_n_steps 0",
        "--trainer.max_epochs -1 --trainer.max_steps 3",
        "--trainer.devices 2",
        "--trainer.devices auto",
        "--trainer.accelerator gpu --trainer.devices 0,1",
        "--trainer.accelerator gpu --trainer.devices -1",
        "--trainer.strategy ddp",
        "--trainer.strategy.table_lr 0",
        "--seed_everything false",
        "--experiment a/b",
        "--model.freeze [item] --finetune runs/default/old",
        "--model.system lightning_ccn.models.WideDeep",
    ],
)
def test_other_values_pass(parse: Parse, words: str) -> None:
    parse(*words.split())


def test_only_a_fit_must_train_something(parse: Parse) -> None:
    parse("--trainer.max_epochs", "0", command="predict")


def test_the_output_of_a_prediction_must_be_writable(parse: Parse) -> None:
    with pytest.raises(OptionError, match=r"cannot be written to.*name another folder with --output"):
        parse("--output", "/proc/scores", command="predict")


def test_a_probe_of_a_folder_leaves_nothing_there(tmp_path: Path) -> None:
    check_writable(tmp_path / "runs" / "default", "--runs")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no full device")
def test_a_full_disk_is_refused_before_work_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr("tempfile.TemporaryFile", lambda dir: full)
        with pytest.raises(OptionError, match="No space left on device; name another folder with --runs, or make room"):
            check_writable(tmp_path, "--runs")


def test_the_command_line_checks_values_before_it_makes_a_run(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data.folder", str(dataset), "--runs", str(tmp_path)]
    assert main(["fit", *words, "--trainer.max_epochs", "-2"]) == 2
    assert capsys.readouterr().err == "ccn: error: trainer.max_epochs is -2: it must be -1 or more\n"
    assert main(["plan", *words, "--world_size", "0"]) == 2
    assert capsys.readouterr().err == "ccn: error: world_size is 0: it must be 1 or more\n"
    assert list(tmp_path.iterdir()) == []
    assert main(["fit", *words, "--trainer.accelerator", "quantum"]) == 2  # left over for Lightning
    said = capsys.readouterr().err
    assert "invalid accelerator name" in said and said.endswith("; --debug shows the traceback\n")
    assert len(said.splitlines()) == 1


def test_a_number_of_batches_stays_one_where_the_parser_makes_it_a_share(parse: Parse) -> None:
    options = parse("--trainer.limit_train_batches", "2.0")
    assert isinstance(options.trainer.limit_train_batches, int)
