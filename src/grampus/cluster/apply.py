"""The table: which function carries out which command. Chosen by `apply_version`, never by chance.

A handler looks at everything that could refuse first, and writes after that. It returns what the
proposer gets, or a `Refusal`. Any exception ends the process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from grampus.cluster import apply_keys, apply_sessions, tokens
from grampus.cluster.apply_sessions import once
from grampus.cluster.commands import Begin, Compact, Delete, End, Put, Txn
from grampus.cluster.keyspace import Keyspace
from grampus.cluster.token_commands import CreateToken, RevokeToken, RevokeWorker, UseToken

Handler = Callable[[Keyspace, Any], object]

_VERSION_1: dict[type[Any], Handler] = {
    Put: lambda space, c: once(space, c.origin, lambda: apply_keys.put(space, c)),
    Delete: lambda space, c: once(space, c.origin, lambda: apply_keys.delete(space, c)),
    Txn: lambda space, c: once(space, c.origin, lambda: apply_keys.txn(space, c)),
    Begin: apply_sessions.begin,
    End: apply_sessions.end,
    Compact: apply_keys.compact,
    CreateToken: tokens.create_token,
    UseToken: tokens.use_token,
    RevokeToken: tokens.revoke_token,
    RevokeWorker: tokens.revoke_worker,
}

APPLY: dict[int, dict[type[Any], Handler]] = {1: _VERSION_1}
