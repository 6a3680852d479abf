"""What a server's folder holds, opened: the ledger, and those who read it beside it.

Rule: one process has the folder, one thread at a time writes the ledger; readers have connections
of their own, which see whole commits. The log is opened by its owner (`consensus.replica`).
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

from grampus.cluster.reads import KeyReads
from grampus.consensus.generation import Generation
from grampus.consensus.snapshots import LEDGER
from grampus.database import Database
from grampus.ledger import Ledger
from grampus.runs.reads import Reads


class Storage(NamedTuple):
    #: Where ledger and log are now, until the next snapshot is laid down.
    generation: Generation
    ledger: Ledger
    #: For the API, on threads of its own.
    reads: Reads
    #: For whoever asks on the event loop.
    readers: Database
    key_reads: KeyReads

    @classmethod
    def open(cls, data: Path, stack: contextlib.AsyncExitStack) -> Storage:
        """What it opens, `stack` closes."""
        generation = Generation.current(data)
        generation.sweep()
        for part in (generation.ledger, generation.log):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = generation.ledger / LEDGER
        ledger = Ledger(path)
        stack.callback(ledger.close)
        reads = Reads(path)
        stack.callback(reads.close)
        readers = Database.open(path, readonly=True)
        stack.callback(readers.close)
        key_reads = KeyReads(path)
        stack.callback(key_reads.close)
        return cls(generation, ledger, reads, readers, key_reads)
