"""What a commit costs: `propose` beside a bare fdatasync of the same disk, in the same run.

    python benchmarks/log.py [FOLDER]

Rounds are interleaved, so that a disk that slows down slows all of them. Medians, and in brackets
the smallest and largest round.
"""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from grampus.consensus.solo import SoloLog

ROUNDS = 5
PROPOSERS = (1, 16, 64)
SECONDS = 0.5
COMMAND = bytes(200)


class Nothing:
    """A machine that only counts."""

    applied_index = 0

    def apply(
        self, index: int, term: int, commands: Sequence[bytes]
    ) -> tuple[list[object], list[object]]:
        self.applied_index = index
        return [None] * len(commands), []

    def checkpoint(self) -> int | None:
        return self.applied_index


def sync(path: Path, ahead: int) -> tuple[float, list[float]]:
    """fdatasync after each small write, on a file filled with zeros or a growing one."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    if ahead:
        os.pwrite(fd, bytes(ahead), 0)
    os.fsync(fd)
    times, begin, at = list[float](), time.perf_counter(), 0
    while (now := time.perf_counter()) < begin + SECONDS:
        os.pwrite(fd, COMMAND, at)
        os.fdatasync(fd)
        times.append(time.perf_counter() - now)
        at += len(COMMAND)
    os.close(fd)
    return len(times) / (time.perf_counter() - begin), times


async def propose(folder: Path, proposers: int) -> tuple[float, list[float]]:
    solo = await SoloLog.open(folder, Nothing())
    times, begin = list[float](), time.perf_counter()

    async def proposer() -> None:
        while (now := time.perf_counter()) < begin + SECONDS:
            await solo.propose([COMMAND])
            times.append(time.perf_counter() - now)

    async with asyncio.TaskGroup() as group:
        for _ in range(proposers):
            group.create_task(proposer())
    took = time.perf_counter() - begin
    await solo.close()
    return len(times) / took, times


def measure(folder: Path, number: int) -> dict[str, tuple[float, list[float]]]:
    found = {
        "fdatasync, filled file": sync(folder / "bare", 4 * 1024 * 1024),
        "fdatasync, growing file": sync(folder / "bare", 0),
    }
    for n in PROPOSERS:
        (folder / f"{number}-{n}").mkdir()
        found[f"propose, {n} at once"] = asyncio.run(propose(folder / f"{number}-{n}", n))
    return found


def spread(values: list[float], form: str) -> str:
    middle = format(statistics.median(values), form)
    return f"{middle} ({min(values):{form}} to {max(values):{form}})"


def main(argv: Sequence[str] = ()) -> None:
    with tempfile.TemporaryDirectory(dir=argv[0] if argv else None) as name:
        rounds = [measure(Path(name), number) for number in range(ROUNDS)]
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{'':24} {'per second':>28} {'p50 ms':>24} {'p99 ms':>24} {'max ms':>8}")
    for case in rounds[0]:
        rates, p50, p99, largest = [], list[float](), list[float](), 0.0
        for found in rounds:
            rate, times = found[case]
            times = sorted(t * 1000 for t in times)
            rates.append(rate)
            p50.append(times[len(times) // 2])
            p99.append(times[int(len(times) * 0.99)])
            largest = max(largest, times[-1])
        print(
            f"{case:24} {spread(rates, ',.0f'):>28} {spread(p50, '.3f'):>24}"
            f" {spread(p99, '.3f'):>24} {largest:8.2f}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
