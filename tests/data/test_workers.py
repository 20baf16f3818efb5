"""Workers hand over batches by value, and nothing that happens to them makes the training wait for ever."""

from __future__ import annotations

import errno
import fcntl
import itertools
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.reader import PageBatches, PageLoader
from lightning_ccn.data.workers import Workers
from lightning_ccn.errors import TrainingError

LARGE = 200_000  # numbers: more than a pipe holds, so that a worker is in the middle of a batch most of the time


class Numbers:
    """The batch of a key is a tensor full of it."""

    def __getitem__(self, key: int) -> Tensor:
        return torch.full((LARGE,), key)


class Failing:
    """The batch of a key is an error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __getitem__(self, key: int) -> Tensor:
        raise self.error


class UnwritableError(Exception):
    """Has something with it that no pipe can carry."""

    def __init__(self) -> None:
        super().__init__("broken")
        self.carried = lambda: None


@pytest.fixture
def children() -> Callable[[], list[BaseProcess]]:
    """Lists the processes that this one has started since the test began; ranks of other tests may be there too."""
    before = multiprocessing.active_children()
    return lambda: [child for child in multiprocessing.active_children() if child not in before]


@contextmanager
def at_most_files(more: int) -> Iterator[None]:
    """Lets this process open so many more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = {int(name) for name in os.listdir("/proc/self/fd")}
    free = (number for number in itertools.count() if number not in taken)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(itertools.islice(free, more, None)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def loader(folder: Path, workers: int) -> PageLoader:
    slices = PageBatches(Dataset.open(folder), "train", batch_pages=2, short_length=3, long_length=2, seed=1)
    return PageLoader(slices, workers)


def test_a_batch_arrives_as_it_was_made(dataset: Path) -> None:
    for alone, helped in zip(loader(dataset, 0), loader(dataset, 2), strict=True):
        for one, two in zip(alone.tensors(), helped.tensors(), strict=True):
            assert torch.equal(one, two)
            assert one.dtype == two.dtype
            if one.is_floating_point():  # or sums may be rounded otherwise
                assert one.data_ptr() % 64 == two.data_ptr() % 64 == 0
        assert _numbers(alone) == _numbers(helped)


def _numbers(batch: PageBatch) -> list[object]:
    """What a batch knows besides its tensors."""
    keyed = [(k.keys(), k.stride(), k.length_per_key()) for k in (batch.user, batch.item)]
    return [
        *keyed,
        batch.of_page.segments,
        batch.of_page.longest,
        batch.longest_short,
        batch.longest_long,
        batch.pages,
        batch.items,
    ]


def test_batches_take_no_shared_memory_and_no_files(dataset: Path) -> None:
    with at_most_files(12):  # of 48 batches of 20 tensors
        held = list(loader(dataset, 1))
        maps = Path("/proc/self/maps").read_text()
    assert len(held) == 48
    assert "/dev/shm/torch" not in maps
    assert "/torch_" not in maps


class Mixed:
    """The batch of a key has arrays of many kinds."""

    def __getitem__(self, key: int) -> dict[str, Any]:
        return {
            "tensor": torch.arange(3) + key,
            "nothing": np.zeros((0, 2)),
            "columns": np.arange(6).reshape(2, 3).T,  # Fortran's order
            "every second": np.arange(6)[::2],
            "words": ["a", None],
        }


def test_arrays_of_all_kinds_arrive_and_can_be_written_to() -> None:
    with Workers(Mixed(), range(3), 2) as workers:
        for key, received in enumerate(workers):
            for name, expected in Mixed()[key].items():
                assert np.array_equal(received[name], expected), name
            received["tensor"] += 1
            received["columns"][0, 0] = 7
            assert received["tensor"].tolist() == [key + 1, key + 2, key + 3]


def test_a_small_pipe_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "the user has too many pages of pipes")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    with Workers(Numbers(), range(4), 2) as workers:
        assert [len(batch) for batch in workers] == [LARGE] * 4


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_end_of_a_worker_ends_the_training_in_words(number: int, children: Callable[[], list[BaseProcess]]) -> None:
    started = time.monotonic()
    with Workers(Numbers(), range(100), 2) as workers:
        batches = iter(workers)
        assert int(next(batches)[0]) == 0
        os.kill(children()[0].pid or 0, number)  # in the middle of a batch
        with pytest.raises(TrainingError) as caught:
            list(batches)
    assert time.monotonic() - started < 20
    message = str(caught.value)
    assert f"by {signal.Signals(number).name}" in message
    assert "lower data.workers (0 reads in the training process)" in message
    assert "\n" not in message


def test_a_worker_ends_by_sigterm_whatever_the_training_does_with_it(children: Callable[[], list[BaseProcess]]) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Workers(Numbers(), range(100), 1) as workers:
            batches = iter(workers)
            next(batches)
            os.kill(children()[0].pid or 0, signal.SIGTERM)
            with pytest.raises(TrainingError, match="by SIGTERM"):
                list(batches)
    finally:
        signal.signal(signal.SIGTERM, before)


class VisibleGPUs:
    """The batch of any key is the list of GPUs that CUDA may use in the worker."""

    def __getitem__(self, key: int) -> str:
        return os.environ["CUDA_VISIBLE_DEVICES"]


def test_a_worker_sees_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with Workers(VisibleGPUs(), [0], 1) as workers:
        assert list(workers) == [""]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_an_error_in_a_worker_arrives_whole() -> None:
    error = OSError(errno.EMFILE, os.strerror(errno.EMFILE), "part.parquet")
    with Workers(Failing(error), [0], 1) as workers, pytest.raises(OSError, match=r"part\.parquet") as caught:
        list(workers)
    assert (caught.value.errno, caught.value.filename) == (errno.EMFILE, "part.parquet")
    assert "In a data worker:\nTraceback" in caught.value.__notes__[0]  # for --debug


def test_an_error_that_cannot_be_sent_is_said() -> None:
    with (
        Workers(Failing(UnwritableError()), [0], 1) as workers,
        pytest.raises(RuntimeError, match="UnwritableError: broken"),
    ):
        list(workers)


def test_a_worker_without_memory_names_the_remedy() -> None:
    with Workers(Failing(MemoryError()), [0], 1) as workers, pytest.raises(TrainingError, match="too little memory"):
        list(workers)


def test_workers_that_cannot_be_started_are_named_with_the_remedy(children: Callable[[], list[BaseProcess]]) -> None:
    with at_most_files(3), pytest.raises(TrainingError) as caught:
        Workers(Numbers(), range(9), 4)
    assert str(caught.value).startswith("data.workers is 4: after ")
    assert "Too many open files; lower data.workers" in str(caught.value)
    assert "ulimit -n" in str(caught.value)
    assert children() == []


def test_workers_do_not_hear_ctrl_c_and_end_with_the_loop(
    dataset: Path, children: Callable[[], list[BaseProcess]]
) -> None:
    batches = iter(Workers(Numbers(), range(100), 2))
    next(batches)
    for worker in children():
        os.kill(worker.pid or 0, signal.SIGINT)
    assert [int(next(batches)[0]) for _ in range(20)] == list(range(1, 21))
    for worker in children():
        worker.kill()
    left = iter(loader(dataset, 2))
    next(left)
    del left
    assert children() == []


def _train_for_ever(tell: Callable[[list[int | None]], None]) -> None:
    workers = Workers(Numbers(), range(1000), 2)
    next(iter(workers))
    tell([child.pid for child in multiprocessing.active_children()])
    time.sleep(60)


def test_workers_end_when_the_training_is_killed() -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    training = context.Process(target=_train_for_ever, args=(theirs.send,))
    training.start()
    workers = ours.recv()
    assert len(workers) == 2
    training.kill()
    training.join()
    deadline = time.monotonic() + 10
    while (alive := [pid for pid in workers if _lives(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive == []


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
