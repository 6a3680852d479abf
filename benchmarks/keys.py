"""How fast keys are: `python benchmarks/keys.py`.

First `Ledger.apply` alone, 100 puts of 256 bytes an entry, on a file, without log and sync. Then a
server of one node: its log syncs every batch. Then reads, on the event loop and by a thread.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path

from grampus.clock import SystemClock
from grampus.cluster.commands import Begin, Origin, Put, encode_command
from grampus.cluster.reads import KeyReads
from grampus.cluster.server import ClusterServer
from grampus.consensus.solo import SoloLog
from grampus.ledger import Ledger

ENTRIES, BATCH, KEYS = 300, 100, 10_000
VALUE = b"v" * 256


def tell(name: str, count: int, spent: float) -> None:
    print(f"{name:<36} {count / spent:9.0f} /s {spent / count * 1e6:8.1f} µs each")


def begin(ledger: Ledger) -> int:
    (session,), _ = ledger.apply(1, 1, [encode_command(Begin(1, "i", "bench", 10_000))])
    assert isinstance(session, int)
    return session


def apply(name: str, origin: bool, folder: Path) -> None:
    ledger = Ledger(folder / f"{origin}.db")
    session = begin(ledger)
    spent, seq = 0.0, 0
    for entry in range(ENTRIES):
        commands = []
        for _ in range(BATCH):
            seq += 1
            who = Origin(session, seq, max(seq - 64, 0)) if origin else None
            commands.append(encode_command(Put(1, key(seq), VALUE, who)))
        begun = time.perf_counter()
        ledger.apply(entry + 2, 1, commands)
        spent += time.perf_counter() - begun
        if entry % 50 == 49:
            ledger.checkpoint()
    ledger.close()
    tell(name, ENTRIES * BATCH, spent)


def key(number: int) -> bytes:
    return b"/bench/%08d" % (number * 7919 % KEYS)


async def serve(folder: Path) -> None:
    ledger = Ledger(folder / "served.db")
    log = await SoloLog.open(folder, ledger, light=ledger.light)
    reads = KeyReads(folder / "served.db")
    server = ClusterServer(log, reads, SystemClock(), "h", os.urandom)

    async def puts(client: int, count: int) -> None:
        for number in range(count):
            await server.put(key(client * count + number), VALUE)

    for clients, count in ((1, 1000), (16, 300), (64, 150), (256, 60)):
        begun = time.perf_counter()
        await asyncio.gather(*[puts(client, count) for client in range(clients)])
        tell(f"puts, one node, {clients} at once", clients * count, time.perf_counter() - begun)
    begun = time.perf_counter()
    for number in range(20_000):
        await server.get(key(number))
    tell("gets, one node", 20_000, time.perf_counter() - begun)
    begun = time.perf_counter()
    for _ in range(2_000):
        await server.range(b"/bench/", 10)
    tell("ranges of 10, by a thread", 2_000, time.perf_counter() - begun)
    server.close()
    await log.close()
    reads.close()
    ledger.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        apply("apply: puts", False, Path(name))
        apply("apply: puts with request ids", True, Path(name))
        asyncio.run(serve(Path(name)))
