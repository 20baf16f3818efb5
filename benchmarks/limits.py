"""The limits of this machine, as a contestant: how fast it multiplies matrices and moves memory.

python -m benchmarks.limits PIPE CLOCK THREADS
"""

from __future__ import annotations

import sys

import torch

from benchmarks.turns import CLOCKS, Turns

SIZES = {  # products [rows, inner] x [inner, columns] -> their name
    "large": (2048, 2048, 2048),
    "keys of a batch": (20_000, 48, 48),
    "head, first layer": (1_020, 144, 200),
    "head, second layer": (1_020, 200, 80),
}
SECONDS = 0.25  # of each measurement
COPIED = 2**26  # float32 numbers: 256 MiB, far beyond the caches


def flops_per_second(size: tuple[int, int, int], clock: str) -> float:
    """Floating-point operations a second of one product, written into the same result again and again."""
    rows, inner, columns = size
    left, right, out = torch.rand(rows, inner), torch.rand(inner, columns), torch.empty(rows, columns)
    now, times = CLOCKS[clock], 0
    torch.mm(left, right, out=out)
    start = now()
    while (seconds := now() - start) < SECONDS or not times:
        torch.mm(left, right, out=out)
        times += 1
    return times * 2.0 * rows * inner * columns / seconds


def bytes_per_second(clock: str) -> float:
    """Bytes a second that a copy reads and writes."""
    source, target = torch.rand(COPIED), torch.empty(COPIED)
    now, times = CLOCKS[clock], 0
    target.copy_(source)
    start = now()
    while (seconds := now() - start) < SECONDS or not times:
        target.copy_(source)
        times += 1
    return times * 2.0 * source.nbytes / seconds


def main() -> None:
    """Measures in turns."""
    pipe, clock, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    turns = Turns(int(pipe), clock)  # type: ignore[arg-type]
    for _ in turns.ready():
        products = {name: flops_per_second(size, clock) for name, size in SIZES.items()}
        turns.answer(flops=products, bytes=bytes_per_second(clock))


if __name__ == "__main__":
    main()
