"""`grampus`, whose Raft can be made to break: `python forged.py FILE ARGUMENT...`.

FILE says how, once it is there. `lost`: a message comes as from the leader, by which more is
committed than this server ever had. `panic`: what the binding raises when raft-rs panics. The
program itself is what it always is.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from grampus_raft import RaftFatal

from grampus.cli.main import main
from grampus.consensus.turns import Turns

HEARTBEAT = 8


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def heartbeat(turns: Turns) -> bytes:
    """Of Raft's protobuf: type (1), to (2), from (3), term (4), commit (8)."""
    fields = {1: HEARTBEAT, 2: turns.id, 3: turns.leader, 4: turns.hard.term, 8: 1_000_000}
    return b"".join(varint(number << 3) + varint(value) for number, value in fields.items())


def forge(file: Path) -> None:
    take_in: Any = Turns._take_in

    def take_in_forged(self: Turns) -> None:
        kind = file.read_text() if file.exists() else ""
        if kind:
            file.unlink()
        if kind == "panic":
            raise RaftFatal("broken [raft.rs:1]")
        if kind == "lost":
            self._inbox.append(heartbeat(self))
        take_in(self)

    Turns._take_in = take_in_forged  # type: ignore[method-assign]


if __name__ == "__main__":
    forge(Path(sys.argv[1]))
    main(sys.argv[2:])
