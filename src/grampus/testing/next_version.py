"""A next apply version, as some servers of a simulated cluster know it before the others do: a
column, a table, a command, and a handler that does something else than in version 1.

Rule: it is known only inside `known()`, so that nothing else in the process meets it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from grampus import versions
from grampus.cluster import apply as cluster_apply
from grampus.cluster.commands import Put
from grampus.cluster.keyspace import Keyspace
from grampus.runs import apply as runs_apply

NEXT = versions.FIRST + 1


class Mark(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="mark"):
    """What a feature of the next version would propose. Accepted: "marked"."""

    at: int
    key: bytes


def encode_mark(mark: Mark) -> bytes:
    return msgspec.msgpack.encode(mark)


def _mark(space: Keyspace, command: Mark) -> str:
    space.db.execute(
        "INSERT OR REPLACE INTO mark (key, at) VALUES (?, ?)", (command.key, command.at)
    )
    return "marked"


def _put(space: Keyspace, command: Put) -> object:
    answer = cluster_apply.APPLY[versions.FIRST][Put](space, command)
    space.db.execute("UPDATE kv SET puts = puts + 1 WHERE key = ?", (command.key,))
    return answer


@contextlib.contextmanager
def known() -> Iterator[None]:
    tables: list[tuple[dict[int, Any], Any]] = [
        (cluster_apply.APPLY, {**cluster_apply.APPLY[versions.FIRST], Put: _put, Mark: _mark}),
        (runs_apply.APPLY, runs_apply.APPLY[versions.FIRST]),
        (versions.SCRIPTS, (("grampus.testing", "schema_2.sql"),)),
    ]
    try:
        for table, of_next in tables:
            table[NEXT] = of_next
        yield
    finally:
        for table, _ in tables:
            table.pop(NEXT, None)
