"""What an attempt costs through the warden, beside bare processes, in the same minutes.

Rounds are interleaved, so that a busy machine hits all of them alike; what counts is the ratio.
Prints medians with their range.

    python benchmarks/spawn.py [--rounds 5] [--attempts 400] [--containment auto]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from grampus.worker.orders import Ended, Launch, Notice
from grampus.worker.warden_client import WardenClient

_ENV = {"PATH": "/usr/bin:/bin"}
_ARGV = ["/bin/sh", "-c", "true"]
AT_ONCE = 4


class Load:
    """Keeps a given number of attempts going until enough have ended."""

    def __init__(self) -> None:
        self.client: WardenClient | None = None
        self._n = 0
        self._left = 0
        self._running = 0
        self._over = asyncio.Event()

    def heard(self, batch: list[Notice]) -> None:
        for notice in batch:
            if isinstance(notice, Ended):
                if notice.cause != "exit" or notice.exit != 0:
                    raise RuntimeError(f"an attempt went wrong: {notice}")
                self._running -= 1
                if self._left:
                    self._launch()
        if not self._running:
            self._over.set()

    def lost(self) -> None:
        raise RuntimeError("the warden is gone")

    async def run(self, attempts: int, at_once: int) -> float:
        """Seconds for so many attempts."""
        self._over.clear()
        self._left = attempts
        begin = time.perf_counter()
        for _ in range(at_once):
            self._launch()
        async with asyncio.timeout(30):
            await self._over.wait()
        return time.perf_counter() - begin

    def _launch(self) -> None:
        assert self.client is not None
        self._n += 1
        self._left -= 1
        self._running += 1
        self.client.send(Launch(self._n, _ARGV, _ENV, "/", None, 1000, f"bench/t.{self._n}"))


def xargs(attempts: int) -> float:
    names = "\n".join(str(k) for k in range(attempts)).encode()
    begin = time.perf_counter()
    command = ["xargs", f"-P{AT_ONCE}", "-n1", "sh", "-c", "true"]
    subprocess.run(command, input=names, env=_ENV, check=True)
    return time.perf_counter() - begin


def spawn(attempts: int) -> float:
    begin = time.perf_counter()
    for _ in range(attempts):
        os.waitpid(os.posix_spawn(_ARGV[0], _ARGV, _ENV), 0)
    return time.perf_counter() - begin


def report(name: str, seconds: list[float], attempts: int, base: float | None = None) -> float:
    """Prints one line; returns the median rate."""
    rates = sorted(attempts / s for s in seconds)
    rate = statistics.median(rates)
    line = f"{name:34} {rate:7.0f}/s  ({rates[0]:.0f} to {rates[-1]:.0f})  {1000 / rate:6.2f} ms"
    print(line + (f"  {rate / base:5.2f} of it" if base else ""))
    return rate


async def measure(rounds: int, attempts: int, containment: str) -> None:
    results: dict[str, list[float]] = {"xargs": [], "four": [], "spawn": [], "one": []}
    with tempfile.TemporaryDirectory() as folder:
        load = Load()
        load.client = await WardenClient.start(
            folder, AT_ONCE, load.heard, load.lost, containment=containment
        )
        await load.run(50, AT_ONCE)
        for _ in range(rounds):
            results["xargs"].append(xargs(attempts))
            results["four"].append(await load.run(attempts, AT_ONCE))
            results["spawn"].append(spawn(attempts))
            results["one"].append(await load.run(attempts, 1))
        kind = load.client.containment
        await load.client.stop(1000)
    print(f"{rounds} rounds of {attempts} times `sh -c true`, {os.cpu_count()} processors, {kind}")
    base = report(f"xargs, {AT_ONCE} at once", results["xargs"], attempts)
    report(f"warden, {AT_ONCE} at once", results["four"], attempts, base)
    base = report("posix_spawn, one after another", results["spawn"], attempts)
    report("warden, one after another", results["one"], attempts, base)


def main(argv: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/spawn.py")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--attempts", type=int, default=400)
    parser.add_argument("--containment", default="auto")
    options = parser.parse_args(argv)
    asyncio.run(measure(options.rounds, options.attempts, options.containment))


if __name__ == "__main__":
    main(sys.argv[1:])
