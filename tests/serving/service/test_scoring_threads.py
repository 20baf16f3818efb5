"""`ScoringThreads`: places, threads and deadlines."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from lightning_ccn.serving.service.limits import Refusal
from lightning_ccn.serving.service.scoring_threads import ScoringThreads
from tests.serving.service.asgi import Loop

SOON, LATER = 0.02, 60.0


async def status_of(threads: ScoringThreads, work: threading.Event, seconds: float) -> object:
    """What the work returned, or the status of its refusal."""
    try:
        return await threads.run(work.wait, time.monotonic() + seconds)
    except Refusal as refusal:
        return refusal.status


def test_a_thread_that_is_given_up_stays_taken_until_its_work_ends(loop: Loop) -> None:
    threads, work = ScoringThreads(1, 9), threading.Event()

    async def story() -> list[object]:
        found = [await status_of(threads, work, SOON)]  # begins, and does not end
        found.append(await status_of(threads, work, SOON))  # does not begin
        work.set()
        found.append(await status_of(threads, work, LATER))
        return found

    assert loop.run(story()) == [504, 503, True]


def test_no_more_than_its_threads_run_at_a_time(loop: Loop) -> None:
    threads, lock, running, most = ScoringThreads(2, 9), threading.Lock(), 0, 0
    two = threading.Barrier(2)

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        two.wait()
        with lock:
            running -= 1

    async def story() -> None:
        await asyncio.gather(*(threads.run(work, time.monotonic() + LATER) for _ in range(20)))

    loop.run(story())
    assert most == 2


def test_what_work_raises_is_raised_and_its_thread_is_free_again(loop: Loop) -> None:
    threads = ScoringThreads(1, 0)

    def work() -> None:
        raise Refusal(422, "no")

    for _ in range(2):
        with pytest.raises(Refusal, match="no"):
            loop.run(threads.run(work, time.monotonic() + LATER))


def test_places_are_given_back_also_after_an_error() -> None:
    threads = ScoringThreads(1, 1)
    with threads.place(), threads.place():
        assert threads.taken == 2
        with pytest.raises(Refusal, match="2 requests are at work or waiting"), threads.place():
            pass
    with pytest.raises(KeyError), threads.place():
        raise KeyError
    assert threads.taken == 0
