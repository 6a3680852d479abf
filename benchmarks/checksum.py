"""What it costs that servers compare their ledgers: the checksum of a ledger with a million task
runs, and what puts notice of it that are applied meanwhile.

The rows are those of `big_ledger`. The sum is taken as a server takes it: on a thread, through a
reader that began at one entry, resting as long as it works.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.big_ledger import MILLION, grow, prepare
from grampus.checksum import checksum
from grampus.clock import SystemClock
from grampus.cluster.commands import Put, encode_command
from grampus.database import Database
from grampus.ledger import Ledger
from grampus.server.audit import Audit
from grampus.upkeep import TakeSum
from grampus.upkeep import encode_command as encode_upkeep

#: Puts of one entry, and seconds of them without a checksum.
PUTS, ALONE = 8, 5.0


class Told:
    """Stands in for the replica: knows when a sum is told."""

    def __init__(self) -> None:
        self.told = asyncio.Event()

    async def propose(self, commands: Sequence[bytes]) -> list[object]:
        self.told.set()
        return ["told"]


async def put_until(ledger: Ledger, stop: asyncio.Event | None) -> list[float]:
    """Milliseconds per entry, applied as they are on a server's loop, 200 a second."""
    entries = []
    end = time.perf_counter() + ALONE
    while time.perf_counter() < end if stop is None else not stop.is_set():
        index = ledger.applied_index + 1
        commands = [
            encode_command(Put(1, b"/k/%d" % ((index * PUTS + n) % 1000), b"v" * 256))
            for n in range(PUTS)
        ]
        began = time.perf_counter()
        ledger.apply(index, 1, commands)
        entries.append((time.perf_counter() - began) * 1e3)
        await asyncio.sleep(0.005)
    return entries


async def beside(ledger: Ledger) -> None:
    told: Any = Told()
    audit = ledger.auditor = Audit(told, 1, "a", lambda: (1,), SystemClock())
    alone = await put_until(ledger, None)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(audit.run())
        began = time.perf_counter()
        ledger.apply(ledger.applied_index + 1, 1, [encode_upkeep(TakeSum(1))])
        pinned = (time.perf_counter() - began) * 1e3
        busy = await put_until(ledger, told.told)
        took = time.perf_counter() - began
        running.cancel()
    print(f"entry that begins a round {pinned:.2f} ms, then {took:.1f} s until the sum is told")
    for what, entries in (("alone", alone), ("beside", busy)):
        entries.sort()
        print(
            f"  apply {PUTS} puts, {what:7} p50 {statistics.median(entries):6.2f} ms"
            f"  p99 {entries[int(len(entries) * 0.99)]:6.2f} ms  max {entries[-1]:6.2f} ms"
        )


def main() -> None:
    rows = int(os.environ.get("ROWS", MILLION))
    with tempfile.TemporaryDirectory(prefix="grampus-bench-") as name:
        prepare(Path(name))
        grow(Path(name), rows)
        path = Path(name, "data", "ledger", "ledger.db")
        db = Database.open(path, readonly=True)
        began, cpu = time.perf_counter(), time.process_time()
        with db.transaction():
            checksum(db)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        tables = db.query("SELECT name FROM sqlite_schema WHERE type = 'table'")
        count = sum(db.value(f"SELECT count(*) FROM {table}") for (table,) in tables)
        db.close()
        print(
            f"{rows:,} task runs, {count:,} rows, {path.stat().st_size / 2**20:,.0f} MiB: a sum"
            f" without rests takes {took:.1f} s, {cpu:.1f} s of it on the processor"
        )
        ledger = Ledger(path)
        try:
            asyncio.run(beside(ledger))
        finally:
            ledger.close()


if __name__ == "__main__":
    main()
