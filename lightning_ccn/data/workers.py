"""Processes that make batches ahead of the training, and hand them over by value, through pipes.

PyTorch's DataLoader hands each tensor over as a file in shared memory. A worker whose batch does not fit there, or that
may open no more files, then loses the batch, and the training waits for it for ever. A batch that goes through a pipe
needs neither, and the end of a worker is the end of its pipe. Arrays are written to the pipe from where they are, and
read from it to where they stay: `Connection.send` and `recv` would copy each several times, on the training's time.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import io
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import torch

from lightning_ccn.errors import TrainingError

Key = TypeVar("Key", contravariant=True)
Batch = TypeVar("Batch", covariant=True)

FEWER = "lower data.workers (0 reads in the training process)"
GO_ON = "--ckpt_path last continues a fit from its newest checkpoint"
END_WITHIN = 5.0  # seconds for a worker whose pipe has ended
PIPE_BYTES = 1 << 20  # the most that a user may ask for by default; 64 KiB wakes both ends sixteen times as often


class Batches(Protocol[Key, Batch]):
    """Something that makes the batch of a key."""

    def __getitem__(self, key: Key, /) -> Batch: ...


class Workers(Generic[Key, Batch]):
    """Processes that make the batches of some keys; iterate over it for the batches, in the order of the keys.

    Each worker makes every n-th batch. It holds up to two that are ready, besides the one that it is working on.

    Workers are forked, also from a rank that uses NCCL and CUDA. They share the dataset's memory, start in milliseconds
    and need nothing of the training written as bytes; a server that forks them would have to open the dataset a second
    time. It is safe because they touch neither: CUDA refuses to work in a fork, they only read files and make CPU
    tensors, they end by `os._exit` or SIGKILL, without destructors, and `RDMAV_FORK_SAFE` (see
    `sharding.process_group`) keeps the memory that InfiniBand writes to with the rank.

    Args:
        batches: Makes the batch of a key. Workers are copies of this process, so nothing of it is sent to them.
        keys: The keys.
        count: Number of workers.

    Raises:
        TrainingError: A worker could not be started, or later: it ended before it had made its batches.
    """

    def __init__(self, batches: Batches[Key, Batch], keys: Sequence[Key], count: int) -> None:
        self._keys = keys
        self._pipes: list[Connection] = []
        self._processes: list[multiprocessing.process.BaseProcess] = []
        atexit.register(self.stop)  # Python would ask them to end by SIGTERM, which `signals.listen` blocks, and wait
        context = multiprocessing.get_context("fork")
        try:
            for number in range(count):
                ours, theirs = context.Pipe(duplex=False)
                self._pipes.append(ours)
                # the user may have too many pipes, or no Linux; it works with a small one
                with contextlib.suppress(OSError, AttributeError):
                    fcntl.fcntl(ours.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
                with theirs:
                    # not a daemon, which could not start processes of its own, see `shared_reading`
                    process = context.Process(
                        target=_work, args=(batches, keys[number::count], theirs, self._pipes), daemon=False
                    )
                    with _ctrl_c_waits():
                        process.start()
                self._processes.append(process)
        except OSError as error:
            started = len(self._processes)
            self.stop()
            raise TrainingError(
                f"data.workers is {count}: after {started} of them, {error.strerror or error}; {FEWER}, or raise the "
                "limits of open files (ulimit -n) and of processes (ulimit -u)"
            ) from None

    def __enter__(self) -> Workers[Key, Batch]:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    def __iter__(self) -> Iterator[Batch]:
        """The batches, in the order of the keys. An error in a worker is raised here.

        Raises:
            TrainingError: A worker ended, or had too little memory.
        """
        for _, number in zip(self._keys, cycle(range(len(self._pipes))), strict=False):
            try:
                batch = receive(self._pipes[number])
            except (EOFError, OSError):  # between two batches, or in the middle of one
                raise TrainingError(self._end_of(number)) from None
            if isinstance(batch, _Failure):
                raise batch.error
            yield batch

    def stop(self) -> None:
        """Ends the workers, whatever they are doing."""
        atexit.unregister(self.stop)
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.kill()  # they only read
            process.join()

    def _end_of(self, number: int) -> str:
        """Says in one line how a worker ended, and what helps."""
        process = self._processes[number]
        process.join(END_WITHIN)
        code = process.exitcode
        who = f"a data worker of this rank (process {process.pid})"
        if code == -signal.SIGKILL:
            return (
                f"{who} was killed by SIGKILL, as a system does that runs out of memory: {FEWER}, or data.batch_pages, "
                f"or ask for more memory; {GO_ON}"
            )
        how = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"
        return f"{who} ended {how}: {FEWER} if it happens again; {GO_ON}"


@contextlib.contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Within it, Ctrl-C waits, so that it cannot end a new worker before that one ignores it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Failure:
    """In place of a batch: the error that its worker met."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class _ByValue(pickle.Pickler):
    """Writes the values of tensors; PyTorch's own way for pipes writes the name of a file in shared memory."""

    def reducer_override(self, value: Any) -> Any:
        """A tensor as the array that it shares its memory with; everything else as usual."""
        if type(value) is torch.Tensor:
            return torch.from_numpy, (value.numpy(),)
        return NotImplemented


@dataclass(frozen=True)
class Message:
    """A batch, ready to be sent.

    Attributes:
        text: All but the values of arrays and tensors, for `pickle.loads`.
        values: Those values, where they are in memory.
    """

    text: bytes
    values: list[memoryview]


def message(batch: object) -> Message:
    """A batch of arrays and CPU tensors, ready to be sent."""
    text, values = io.BytesIO(), list[pickle.PickleBuffer]()
    _ByValue(text, protocol=5, buffer_callback=values.append).dump(batch)
    return Message(text.getvalue(), [value.raw() for value in values])


def send(message: Message, pipe: Connection) -> None:
    """Writes a batch to a pipe, and waits until the other end has read all but the pipe's own bytes."""
    pipe.send((message.text, [value.nbytes for value in message.values]))
    for value in message.values:
        while value:
            value = value[os.write(pipe.fileno(), value) :]


def receive(pipe: Connection) -> Any:
    """The next batch of a pipe.

    Raises:
        EOFError: The other end was closed.
    """
    text, sizes = pipe.recv()
    values = [torch.empty(size, dtype=torch.uint8).numpy() for size in sizes]  # aligned as PyTorch's own
    for value in values:
        left = value.data
        while left:
            if not (read := os.readv(pipe.fileno(), [left])):
                raise EOFError
            left = left[read:]
    return pickle.loads(text, buffers=values)


def _work(batches: Batches[Key, Batch], keys: Sequence[Key], pipe: Connection, others: list[Connection]) -> None:
    """What a worker does: makes the batches, while a thread sends those that are ready."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches workers too; the ranks decide
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the training's handler is not for workers
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a worker that used CUDA would take 500 MB of a GPU: it ends in an error
    for other in others:
        other.close()  # or the training's end would not be the end of these pipes
    torch.set_num_threads(1)
    ready: queue.Queue[Message | None] = queue.Queue(maxsize=1)
    sender = threading.Thread(target=_send, args=(ready, pipe), daemon=True)
    sender.start()
    for key in keys:
        ready.put(_made(batches, key))
    ready.put(None)
    sender.join()


def _made(batches: Batches[Key, Batch], key: Key) -> Message:
    try:
        return message(batches[key])
    except MemoryError:
        return message(_Failure(TrainingError(f"a data worker has too little memory for a batch: {FEWER}")))
    except Exception as error:
        error.add_note(f"In a data worker:\n{traceback.format_exc()}")
        try:
            return message(_Failure(error))
        except Exception:  # an error that cannot be written
            return message(_Failure(RuntimeError(f"{type(error).__name__}: {error}")))


def _send(ready: queue.Queue[Message | None], pipe: Connection) -> None:
    try:
        while (made := ready.get()) is not None:
            send(made, pipe)
    except OSError:  # the training has ended
        os._exit(0)
