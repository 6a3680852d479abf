"""`python -m next_grampus` is the command line of the next version.

A put of a key under /mark/ proposes the new command, as a new feature would. Its servers compare
their ledgers every second."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from msgspec import Struct

from grampus import versions
from grampus.cli.main import main
from grampus.cluster import apply as cluster_apply
from grampus.cluster.commands import Put
from grampus.cluster.keyspace import Keyspace
from grampus.cluster.server import ClusterServer
from grampus.runs import apply as runs_apply
from grampus.server import audit


class Mark(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="mark"):
    at: int
    key: bytes


def mark(space: Keyspace, command: Mark) -> str:
    space.db.execute("INSERT INTO mark (key, at) VALUES (?, ?)", (command.key, command.at))
    return "marked"


def put(space: Keyspace, command: Put) -> object:
    answer = cluster_apply.APPLY[1][Put](space, command)
    space.db.execute("UPDATE kv SET puts = puts + 1 WHERE key = ?", (command.key,))
    return answer


plain_put: Any = ClusterServer.put


async def marking_put(self: Any, key: bytes, *args: Any, **others: Any) -> Any:
    if key.startswith(b"/mark/"):
        command = Mark(self._clock.now(), key)
        await self._replica.propose([msgspec.msgpack.encode(command)])
    return await plain_put(self, key, *args, **others)


cluster_apply.APPLY[2] = {**cluster_apply.APPLY[1], Put: put, Mark: mark}
runs_apply.APPLY[2] = runs_apply.APPLY[1]
versions.SCRIPTS[2] = (("next_grampus", "schema_2.sql"),)
ClusterServer.put = marking_put  # type: ignore[method-assign]
audit.EVERY = 1.0

if __name__ == "__main__":
    sys.exit(main())
