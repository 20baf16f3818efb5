"""The life of the process group of all ranks: a rank joins it, tells the others how far it is, and leaves it.

Read in torch 2.11 and 2.14 (`distributed_c10d.py`, `ProcessGroupNCCL.cpp`), for what cannot be tried without GPUs:

- `destroy_process_group` on NCCL waits until all operations are complete, also those that no other rank will join. A
  rank that fails alone therefore aborts its communicators instead (`_abort_process_group`, made for that).
- The others would still wait in their operation, whose kernel notices nothing. After the timeout NCCL's watchdog ends
  their processes from C++, so no exception reaches Python. A thread of each rank therefore says what is known before
  that, and ends its process when another rank has failed and the main thread does not notice it.
- gloo raises a RuntimeError on the other ranks as soon as the connection is closed, or after the timeout.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import platform
import sys
import threading
import time

import torch.distributed as dist
from torch.distributed.distributed_c10d import _abort_process_group

from lightning_ccn.sharding.rank_store import ANSWER_WITHIN, RankStore, Sign

BEAT = 2.0  # seconds between two signs of life
GRACE = 20.0  # seconds in which a rank notices itself that another has failed
SILENT = 60.0  # seconds without an answer after which the store, and rank 0 with it, counts as gone
PART_WITHIN = 20.0  # seconds for which the rank with the store waits for the others at the end
ABORT_WITHIN = 15.0  # seconds for an abort, after which the process ends without one
LATE = "trainer.strategy.timeout_seconds"
TIMED_OUT = (  # of gloo, NCCL's watchdog, and the store
    "Timed out waiting",
    "Watchdog caught collective operation timeout",
    "collective timeout",
    "wait timeout after",
    "Timed out after",
)
LOST = (  # of gloo, of NCCL, and of TorchRec, which asks NCCL before it reads sizes (`dist_data.py`)
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "NCCL communicator was aborted",
    "ncclRemoteError",
    "remote process exited",
    "Some NCCL operations have failed or timed out",
    "possible application crash on rank 0",
    "NCCL error detected on ProcessGroup",
    *TIMED_OUT,
)
DUMPS = ("TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE")  # where NCCL's flight recorder writes


class Member(threading.Thread):
    """This rank in the process group; the thread gives signs of life, and looks for a rank that has failed.

    Args:
        timeout: Seconds after which an operation fails that a rank does not join.
    """

    def __init__(self, timeout: float) -> None:
        super().__init__(name="signs of life", daemon=True)
        self.timeout = timeout
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.backend = dist.get_backend()
        self.group = dist.group.WORLD
        self.store = RankStore()
        self.code = 1
        self.alone = False  # whether this rank fails, and the others may not
        self.together = False  # whether every rank ends here
        self._ends = threading.Event()
        self._parting = False
        self._operations, self.since = -1, time.monotonic()  # since when no further operation has begun
        self._warned = False
        self._before: dict[int, Sign] = {}
        self._compare_at = 0.0

    # ---------------------------------------------------------------------------------------------- the thread

    def run(self) -> None:
        """Gives a sign of life every `BEAT` seconds, until this rank ends."""
        beat, answered = 0, time.monotonic()
        while self.joined and not self._ends.is_set():
            beat += 1
            try:
                self.store.give_sign(self.rank, Sign(beat, self.operations(), platform.node()))
                failed, parting = self.store.ask("failed", "parting")
            except (OSError, RuntimeError):
                if self._parting:
                    return
                if time.monotonic() - answered > SILENT:  # one slow answer, of a busy node, must not end a run
                    self.end_after_another("rank 0, which keeps the store of all ranks, does not answer")
                    return
                self._ends.wait(BEAT)
                continue
            answered = time.monotonic()
            self._parting = parting is not None
            if failed is not None:
                self.end_after_another(failed)
                return
            self.warn_of_delay()
            self._ends.wait(BEAT)

    @property
    def joined(self) -> bool:
        """Whether the group that this rank has joined is still there."""
        return dist.is_initialized() and dist.group.WORLD is self.group

    def operations(self) -> int:
        """Number of collective operations that this rank has begun, the same on every rank that has come as far."""
        try:
            number: int = self.group._get_sequence_number_for_group()  # type: ignore[union-attr]
        except RuntimeError:  # of a backend that does not count, or a group that is gone
            return 0
        if number != self._operations:
            self._operations, self.since = number, time.monotonic()
        return number

    def end_after_another(self, failed: str) -> None:
        """Ends this process if it waits for a rank that has failed: NCCL does not notice, gloo does."""
        if self.backend == dist.Backend.GLOO or self._ends.wait(GRACE):
            return
        self._say(f"another rank ended: {failed}; so this one ends too{self.flight_recorder()}")
        _leave_hard(1)

    def warn_of_delay(self) -> None:
        """Says for whom this rank waits, shortly before NCCL's watchdog ends the process.

        It compares the signs at two calls. If it waited between them, the others would miss this rank's signs.
        """
        waited = time.monotonic() - self.since
        if self._warned or self.backend == dist.Backend.GLOO or waited < max(self.timeout - 10, 0.7 * self.timeout):
            self._before = {}
            return
        if not self._before:
            self._before, self._compare_at = self.store.signs(self.world_size), time.monotonic() + 3 * BEAT
        elif time.monotonic() >= self._compare_at and (
            late := self._late(self._before, self.store.signs(self.world_size))
        ):
            self._warned = True
            self._say(
                f"has waited {waited:.0f} s for {late}; after {self.timeout:g} s ({LATE}) it is ended"
                f"{self.flight_recorder()}"
            )

    def _say(self, words: str) -> None:
        print(f"error: rank {self.rank}: {words}", file=sys.stderr, flush=True)

    # ---------------------------------------------------------------------------------------------- what is known

    def late(self) -> str | None:
        """Names the ranks that have not begun the operation that this rank waits for; None if there is none.

        It takes the time of three signs of life, to tell the ranks that live from those that do not.
        """
        before = self.store.signs(self.world_size)
        time.sleep(3 * BEAT)
        return self._late(before, self.store.signs(self.world_size) or before)

    def _late(self, before: dict[int, Sign], now: dict[int, Sign]) -> str | None:
        mine = self.operations()
        named = []
        for rank, sign in now.items():
            if sign.operations >= mine or rank == self.rank:
                continue
            silent = rank in before and before[rank].beat == sign.beat
            lives = "gives no sign of life" if silent else f"lives, {mine - sign.operations} operation(s) behind"
            named.append(f"rank {rank} on {sign.node} ({lives})")
        return ", ".join(named) or None

    def failed_first(self) -> str | None:
        """What the rank said that failed first, if another one did."""
        try:
            words = self.store.ask("failed")[0]
        except (OSError, RuntimeError):
            return None
        return None if words is None or words.startswith(f"rank {self.rank} ") else words

    def flight_recorder(self) -> str:
        """Where NCCL's flight recorder writes what this rank was waiting for, as the end of a message."""
        place = next((os.environ[name] for name in DUMPS if os.environ.get(name)), None)
        return f"; NCCL's flight recorder: {place}{self.rank}" if place and self.backend == dist.Backend.NCCL else ""

    # ---------------------------------------------------------------------------------------------- the end

    def fail(self, error: BaseException, code: int) -> None:
        """Tells the others that this rank fails, unless one has failed before, or every rank ends here."""
        self.code = code
        if self.together or self.alone:
            return
        self.alone = True
        self._ends.set()
        if not _rank_lost(error):
            words = " ".join(str(error).split())[:500]
            with contextlib.suppress(OSError, RuntimeError):
                if self.store.add("failures", 1) == 1:
                    self.store.tell("failed", f"rank {self.rank} on {platform.node()}: {type(error).__name__}: {words}")

    def leave(self) -> None:
        """Leaves the group without waiting for a rank that will not come."""
        self._ends.set()
        if self.is_alive():  # a thread that the interpreter's end finds in the store's C++ aborts the process
            self.join(ANSWER_WITHIN + 1)
        if self.backend != dist.Backend.GLOO and (self.alone or self.failed_first()):
            if self.rank == 0:
                time.sleep(1.5 * BEAT)  # the store ends with this process: the others have to read why
            _abort(self.code)
            return
        if not self.alone:
            self._part()
        dist.destroy_process_group()

    def _part(self) -> None:
        """Keeps the store until the other ranks have left."""
        with contextlib.suppress(OSError, RuntimeError):
            if self.rank == 0:
                self.store.tell("parting", "yes")
            self.store.add("left", 1)
            deadline = time.monotonic() + PART_WITHIN
            while self.rank == 0 and time.monotonic() < deadline and self.store.add("left", 0) < self.world_size:
                time.sleep(0.05)


_member: Member | None = None


def prepare() -> None:
    """Sets what must be set before NCCL is loaded into the process group; call it before joining.

    Data workers are forked from a rank whose NCCL uses InfiniBand. Without copies of registered memory on fork (Linux
    before 5.12), its pages would go to whoever writes first, and the network card would write to the wrong ones.
    NCCL calls `ibv_fork_init` too (net_ib.cc), but after other libraries may have registered memory.
    """
    os.environ.setdefault("RDMAV_FORK_SAFE", "1")


def join(timeout: float) -> None:
    """Begins the life of this rank in the default process group, which exists; it leaves when the interpreter exits.

    It is not left earlier because a `test` may follow a `fit`, with the same sharded tables.

    Args:
        timeout: Seconds after which an operation fails that a rank does not join.
    """
    global _member
    if _member is not None and _member.joined:
        _member.together = False  # that was an earlier run of this process
        return
    _member = Member(timeout)
    if _member.world_size > 1:
        _member.start()
    atexit.unregister(leave)
    atexit.register(leave)


def fails(error: BaseException, code: int = 1) -> None:
    """Says that this rank ends by an error, which the others may not have.

    Args:
        error: What ends it.
        code: Exit code of the process.
    """
    if _member is not None and _member.joined:
        _member.fail(error, code)


def ends_together() -> None:
    """Says that every rank ends here, so that none fails alone."""
    if _member is not None:
        _member.together = True


def loss_of_rank(error: BaseException) -> str | None:
    """What is known if an error says that another rank ended or did not come; None if it says something else.

    Returns:
        Part of a line, such as "another rank ended: rank 1 on n2: DataError: ...".
    """
    if not _rank_lost(error):
        return None
    member = _member if _member is not None and _member.joined else None
    first = member.failed_first() if member else None
    recorder = member.flight_recorder() if member else ""
    if first is not None:
        return f"another rank ended: {first}{recorder}"
    if member and any(said in str(error) for said in TIMED_OUT):
        late = member.late() or "a rank that is not known: each has begun the operation, or tells nothing"
        return f"another rank ended or hangs: this one waited {member.timeout:g} s ({LATE}) for {late}{recorder}"
    return f"another rank ended, and its log says why{recorder}"


def leave() -> None:
    """Leaves the process group, and waits until gloo's threads are idle before the interpreter shuts down.

    A gloo thread releases the tensors of a collective operation after it has reported its end, and needs Python's
    global lock for that. If the interpreter is already shutting down, Python ends the thread by unwinding its C++
    frames, and the process aborts ("terminate called without an active exception", about one exit in ten on a busy
    machine). Destroying the group would join its threads, but the sharded tables still refer to it. So release the
    lock here, with nothing running, for much longer than the threads need.
    """
    if _member is not None and _member.joined:
        _member.leave()
        time.sleep(0.2)


def _rank_lost(error: BaseException) -> bool:
    if isinstance(error, dist.DistNetworkError | dist.DistStoreError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in LOST)


def _abort(code: int) -> None:
    """Aborts all groups. After a fault of the GPU that can hang as well: then the process ends without it."""
    aborted: list[bool] = []

    def abort() -> None:
        with contextlib.suppress(Exception):  # experimental, says torch
            _abort_process_group()
            aborted.append(True)

    thread = threading.Thread(target=abort, daemon=True)
    thread.start()
    thread.join(ABORT_WITHIN)
    if not aborted:
        _leave_hard(code)


def _leave_hard(code: int) -> None:
    """Ends the process as it is, with what it has said."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
