"""Reads of the key space: one look at one state of the ledger each, bounded in rows and bytes."""

from __future__ import annotations

from msgspec import Struct

from grampus.cluster.values import KeyChange, KeysChanged, KeyValue, SessionInfo
from grampus.database import Database
from grampus.errors import Compacted

#: Keys of one page, and bytes of one page or one piece of history.
PAGE_ROWS = 1_000
PAGE_BYTES = 1024 * 1024
#: Revisions of one piece of history.
PIECE = 500

_GET = (
    "SELECT m.value, k.value, k.created, k.modified, k.version, k.session FROM meta m"
    " LEFT JOIN kv k ON k.key = ? WHERE m.key = 'revision'"
)
_RANGE = (
    "SELECT key, value, created, modified, version, session FROM kv"
    " WHERE key >= ? AND key <= ? ORDER BY key"
)
_SIZES = "SELECT key, length(value) FROM kv WHERE key >= ? AND key < ? ORDER BY key LIMIT ?"
_PIECE = (
    "SELECT revision, sum(length(key) + ifnull(length(value), 0)) FROM kv_history"
    " WHERE revision > ? AND key >= ? AND key < ? GROUP BY revision ORDER BY revision LIMIT ?"
)
_CHANGES = (
    "SELECT revision, at, key, value, created, version, session FROM kv_history"
    " WHERE revision > ? AND revision <= ? AND key >= ? AND key < ? ORDER BY revision, place"
)


class Page(Struct, frozen=True):
    """Keys of a range, in order. `more`: there are further keys in the range."""

    revision: int
    items: tuple[KeyValue, ...]
    more: bool


class Piece(Struct, frozen=True):
    """Whole revisions, in order. `until`: everything up to it that matches was told."""

    until: int
    facts: tuple[KeysChanged, ...]


class Queries:
    """Over one read-only connection; not for use by two threads at once."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def revision(self) -> int:
        revision: int = self._db.value("SELECT value FROM meta WHERE key = 'revision'")
        return revision

    def get(self, key: bytes) -> tuple[int, KeyValue | None]:
        """The ledger's revision, and the key."""
        revision, value, *numbers = self._db.one(_GET, (key,))
        return revision, None if value is None else KeyValue(key, value, *numbers)

    def range(self, start: bytes, end: bytes, limit: int) -> Page:
        """Keys from `start` to before `end`, at most `limit` and PAGE_ROWS, and at least one."""
        with self._db.transaction():
            revision = self.revision()
            sizes = self._db.query(_SIZES, (start, end, min(limit, PAGE_ROWS) + 1))
            size, count = 0, 0
            for key, length in sizes[: min(limit, PAGE_ROWS)]:
                size += len(key) + length
                if count and size > PAGE_BYTES:
                    break
                count += 1
            if not count:
                return Page(revision, (), bool(sizes))
            rows = self._db.query(_RANGE, (start, sizes[count - 1][0]))
        return Page(revision, tuple(KeyValue(*row) for row in rows), len(sizes) > count)

    def count(self, start: bytes, end: bytes) -> int:
        count: int = self._db.value(
            "SELECT count(*) FROM kv WHERE key >= ? AND key < ?", (start, end)
        )
        return count

    def history(self, after: int, start: bytes, end: bytes) -> Piece:
        """What changed in the range beyond revision `after`; call again from `until`.

        Raises Compacted when some of it is forgotten."""
        with self._db.transaction():
            self.check_known(after)
            found = self._db.query(_PIECE, (after, start, end, PIECE))
            size = count = 0
            for _, length in found:
                size += length
                if count and size > PAGE_BYTES:
                    break
                count += 1
            whole = count == len(found) < PIECE
            until = max(self.revision(), after) if whole else found[count - 1][0]
            rows = self._db.query(_CHANGES, (after, until, start, end))
        return Piece(until, tuple(_facts(rows)))

    def check_known(self, after: int) -> None:
        """Raises Compacted when something beyond revision `after` is forgotten."""
        compacted = self.compacted()
        if after < compacted:
            raise Compacted(
                f"what changed up to revision {compacted} is forgotten: read the keys, then watch"
                " from the revision behind that of the answer on",
                compacted + 1,
            )

    def compacted(self) -> int:
        """Nothing up to this revision can be watched any more."""
        compacted: int = self._db.value("SELECT compacted FROM keyspace")
        return compacted

    def sessions(self) -> tuple[int, list[SessionInfo]]:
        """The ledger's revision, and all sessions that live."""
        with self._db.transaction():
            rows = self._db.query("SELECT id, name, ttl, opened FROM cluster_session ORDER BY id")
            return self.revision(), [SessionInfo(*row) for row in rows]

    def sessions_of(self, owner: str, limit: int) -> list[str]:
        """The instances of sessions that a node has."""
        rows = self._db.query(
            "SELECT instance FROM cluster_session WHERE instance >= ? AND instance < ?"
            " ORDER BY instance LIMIT ?",
            (owner + "/", owner + "0", limit),  # "0" follows "/"
        )
        return [instance for (instance,) in rows]

    def session(self, id: int) -> SessionInfo | None:
        row = self._db.one("SELECT id, name, ttl, opened FROM cluster_session WHERE id = ?", (id,))
        return None if row is None else SessionInfo(*row)


def _facts(rows: list[tuple[int, int, bytes, bytes | None, int, int, int]]) -> list[KeysChanged]:
    facts: list[KeysChanged] = []
    changes: list[KeyChange] = []
    revision = at = 0
    for row in rows:
        if row[0] != revision:
            if changes:
                facts.append(KeysChanged(revision, at, tuple(changes)))
            revision, at, changes = row[0], row[1], []
        changes.append(KeyChange(*row[2:]))
    if changes:
        facts.append(KeysChanged(revision, at, tuple(changes)))
    return facts
