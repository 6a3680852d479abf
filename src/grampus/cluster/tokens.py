"""Join tokens and the keys of workers in the ledger: the handlers, and what is read of them.

Rule: a token is used once, and this is where that is decided. No secret is in the ledger, only
hashes. A worker is known by the one key with which it joined last; servers are known by the
membership of the log, not here.
"""

from __future__ import annotations

import hmac

from msgspec import Struct

from grampus.cluster.keyspace import Keyspace
from grampus.cluster.refusal import Refusal
from grampus.cluster.token_commands import CreateToken, RevokeToken, RevokeWorker, UseToken
from grampus.database import Database

#: Tokens kept, used and expired ones included.
MOST_TOKENS = 1_000
#: An expired token is remembered for this long, so that its use is refused with the reason.
REMEMBERED = 7 * 86_400_000
_ROLES = ("server", "worker")
_UNKNOWN = Refusal(
    "no-token",
    "this join token is not known here, or has been removed: make another one on a server",
)


class TokenRow(Struct, frozen=True):
    """A token as the ledger has it. Times in wall ms."""

    id: str
    hash: str
    role: str
    name: str
    created: int
    expires: int
    #: When and by whom; None and "" before.
    used: int | None
    used_by: str
    key: str


_COLUMNS = ", ".join(TokenRow.__struct_fields__)


def create_token(space: Keyspace, command: CreateToken) -> str | Refusal:
    db = space.db
    row = find_token(db, command.id)
    if row is not None:
        same = row.hash == command.hash and row.role == command.role and row.name == command.name
        return "created" if same else Refusal("conflict", f"there is a token {command.id} already")
    if command.role not in _ROLES:
        return Refusal("conflict", f"a token is for a server or a worker, not {command.role}")
    _forget(db, command.at)
    if db.value("SELECT count(*) FROM join_token") >= MOST_TOKENS:
        return Refusal("too-many", f"there are {MOST_TOKENS} join tokens already: remove some")
    db.execute(
        f"INSERT INTO join_token ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, NULL, '', '')",
        (
            command.id, command.hash, command.role, command.name, command.at, command.expires,
        ),
    )  # fmt: skip
    return "created"


def use_token(space: Keyspace, command: UseToken) -> str | Refusal:
    """What could refuse comes first; a wrong secret is told no more than an unknown token."""
    db, row = space.db, find_token(space.db, command.id)
    if row is None or not hmac.compare_digest(row.hash, command.hash):
        return _UNKNOWN
    if (refusal := _may_use(db, row, command)) is not None:
        return refusal
    if row.used is not None:
        return "admitted"
    db.execute(
        "UPDATE join_token SET used = ?, used_by = ?, key = ? WHERE id = ?",
        (command.at, command.name, command.key, command.id),
    )
    if command.role == "worker":
        db.execute(
            "INSERT OR REPLACE INTO worker_key (name, key, token, at) VALUES (?, ?, ?, ?)",
            (command.name, command.key, command.id, command.at),
        )
    return "admitted"


def _may_use(db: Database, row: TokenRow, command: UseToken) -> Refusal | None:
    name = command.name
    if command.at >= row.expires:
        return Refusal("expired", f"the join token {row.id} has expired: make another one")
    if command.role != row.role:
        return Refusal("conflict", f"the join token {row.id} is for a {row.role}")
    if row.name and name != row.name:
        return Refusal("conflict", f"the join token {row.id} is for {row.name} only")
    known = worker_key(db, name) if row.role == "worker" else None
    if row.used is not None:
        if (row.used_by, row.key) != (name, command.key):
            return Refusal("used", f"the join token {row.id} was used by {row.used_by}")
        if row.role == "worker" and known != row.key:
            return Refusal("conflict", f"worker {name} was removed: make another join token")
    elif known is not None and known != command.key and not row.name:
        return Refusal(
            "conflict",
            f"worker {name} has joined before with another key: choose another name, or make a"
            " join token for that name",
        )
    return None


def revoke_token(space: Keyspace, command: RevokeToken) -> str | Refusal:
    if find_token(space.db, command.id) is None:
        return Refusal("not-found", f"there is no join token {command.id}")
    space.db.execute("DELETE FROM join_token WHERE id = ?", (command.id,))
    return "revoked"


def revoke_worker(space: Keyspace, command: RevokeWorker) -> str | Refusal:
    if worker_key(space.db, command.name) is None:
        return Refusal("not-found", f"no worker {command.name} has joined")
    space.db.execute("DELETE FROM worker_key WHERE name = ?", (command.name,))
    return "revoked"


def find_token(db: Database, token: str) -> TokenRow | None:
    row = db.one(f"SELECT {_COLUMNS} FROM join_token WHERE id = ?", (token,))
    return None if row is None else TokenRow(*row)


def list_tokens(db: Database) -> list[TokenRow]:
    """All that are kept, the newest first."""
    rows = db.query(f"SELECT {_COLUMNS} FROM join_token ORDER BY created DESC, id")
    return [TokenRow(*row) for row in rows]


def worker_key(db: Database, name: str) -> str | None:
    """By which this worker is known; None when it has not joined, or was removed."""
    key: str | None = db.value("SELECT key FROM worker_key WHERE name = ?", (name,))
    return key


def _forget(db: Database, at: int) -> None:
    """Tokens that expired long ago, a bounded number."""
    db.execute(
        "DELETE FROM join_token WHERE id IN (SELECT id FROM join_token WHERE expires < ?"
        " ORDER BY expires, id LIMIT 100)",
        (at - REMEMBERED,),
    )
