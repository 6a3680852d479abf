"""How fast the ledger applies puts: `python benchmarks/keys.py`. Nothing but `Ledger.apply`.

Each entry holds 100 puts of 256 bytes, as a log under load makes them; on a file, no log, no sync.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from grampus.cluster.commands import Begin, Origin, Put, encode_command
from grampus.ledger import Ledger

ENTRIES, BATCH, KEYS = 300, 100, 10_000


def begin(ledger: Ledger) -> int:
    (session,), _ = ledger.apply(1, 1, [encode_command(Begin(1, "i", "bench", 10_000))])
    assert isinstance(session, int)
    return session


def measure(name: str, origin: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.db")
        session = begin(ledger)
        spent, seq = 0.0, 0
        for entry in range(ENTRIES):
            commands = []
            for _ in range(BATCH):
                seq += 1
                who = Origin(session, seq, max(seq - 64, 0)) if origin else None
                key = b"/bench/%08d" % (seq * 7919 % KEYS)
                commands.append(encode_command(Put(1, key, b"v" * 256, who)))
            begun = time.perf_counter()
            ledger.apply(entry + 2, 1, commands)
            spent += time.perf_counter() - begun
            if entry % 50 == 49:
                ledger.checkpoint()
        ledger.close()
    count = ENTRIES * BATCH
    print(f"{name:<28} {count / spent:8.0f} puts/s {spent / count * 1e6:6.1f} µs each")


if __name__ == "__main__":
    measure("puts", False)
    measure("puts with request ids", True)
