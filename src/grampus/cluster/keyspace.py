"""The keys as one batch changes them: rows, history, and the counts that bound them.

A command's changes are one revision: `begin`, then puts and deletes, then `commit`. The history is
written once for the whole batch, by `store`; there too the oldest of it is forgotten, by whole
revisions, when it has grown too long. `limits` says how long.
"""

from __future__ import annotations

from grampus.cluster.batch import Batch
from grampus.cluster.limits import (
    HISTORY_BYTES,
    HISTORY_ROWS,
    KEY_COST,
    ROWS,
    SLACK_BYTES,
    SLACK_ROWS,
    SPACE_LIMIT,
)
from grampus.cluster.values import KeyChange, KeysChanged, KeyValue
from grampus.database import Database

_GET = "SELECT value, created, modified, version, session FROM kv WHERE key = ?"
_LOOK = "SELECT created, version, length(value), session FROM kv WHERE key = ?"
_INSERT = (
    "INSERT INTO kv (key, value, created, modified, version, session) VALUES (?, ?, ?, ?, 1, ?)"
)
_UPDATE = "UPDATE kv SET value = ?, modified = ?, version = ?, session = ? WHERE key = ?"
_OWNED = "UPDATE cluster_session SET keys = keys + ? WHERE id = ?"
_RECORD = (
    "INSERT INTO kv_history (revision, place, at, key, value, created, version, session)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_OLDEST = (
    "SELECT revision, at, length(key) + ifnull(length(value), 0) FROM kv_history"
    " ORDER BY revision, place LIMIT ?"
)
#: How much of the history one command or batch forgets, besides as much as it adds.
FORGOTTEN = 2_000


class Keyspace:
    """Within one batch. Reads its counts when it is first used."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.db = batch.db
        self._loaded = False
        self._bytes = self._rows = self._row_bytes = self._compacted = 0
        self._history: list[tuple[object, ...]] = []
        #: Of the command under way.
        self._changes: list[KeyChange] = []
        self._revision = 0

    def room(self, size: int) -> bool:
        """Whether keys and values of so many bytes can be added."""
        self._load()
        return self._bytes + size <= SPACE_LIMIT

    def get(self, key: bytes) -> KeyValue | None:
        row = self.db.one(_GET, (key,))
        return None if row is None else KeyValue(key, *row)

    def numbers(self, key: bytes) -> tuple[int, int, int, int]:
        """(created, modified, version, session); zeros for a key that does not exist."""
        row = self.db.one(
            "SELECT created, modified, version, session FROM kv WHERE key = ?", (key,)
        )
        return (0, 0, 0, 0) if row is None else row

    def keys(self, start: bytes, end: bytes, limit: int) -> list[tuple[bytes, int]]:
        """Keys of a range, in order, each with the size of its value."""
        return self.db.query(
            "SELECT key, length(value) FROM kv WHERE key >= ? AND key < ? ORDER BY key LIMIT ?",
            (start, end, limit),
        )

    def begin(self) -> None:
        """A command begins to change something."""
        self._load()
        self._changes = []
        self._revision = self.batch.revision + 1

    def put(self, key: bytes, value: bytes, session: int) -> None:
        """Makes or replaces the key; from now on it is the session's, or nobody's (0)."""
        row = self.db.one(_LOOK, (key,))
        if row is None:
            created, version, owner = self._revision, 1, 0
            self.db.execute(_INSERT, (key, value, created, created, session))
            self._bytes += len(key) + len(value) + KEY_COST
        else:
            created, version, size, owner = row
            version += 1
            self.db.execute(_UPDATE, (value, self._revision, version, session, key))
            self._bytes += len(value) - size
        if owner != session:
            self._own(owner, -1)
            self._own(session, 1)
        self._changes.append(KeyChange(key, value, created, version, session))

    def delete(self, key: bytes) -> bool:
        """False when it does not exist."""
        row = self.db.one(_LOOK, (key,))
        if row is None:
            return False
        self.db.execute("DELETE FROM kv WHERE key = ?", (key,))
        self._bytes -= len(key) + row[2] + KEY_COST
        self._own(row[3], -1)
        self._changes.append(KeyChange(key, None))
        return True

    def delete_range(self, start: bytes, end: bytes) -> int:
        """At most ROWS keys; how many."""
        return sum(self.delete(key) for key, _ in self.keys(start, end, ROWS))

    def _own(self, session: int, keys: int) -> None:
        if session:
            self.db.execute(_OWNED, (keys, session))

    def commit(self, at: int) -> int:
        """The command is done: its revision, or the newest there is when nothing changed."""
        if not self._changes:
            return self.batch.revision
        self.batch.revision = revision = self._revision
        for place, change in enumerate(self._changes):
            key, value = change.key, change.value
            self._history.append(
                (revision, place, at, key, value, change.created, change.version, change.session)
            )
            self._row_bytes += len(key) + (0 if value is None else len(value))
        self._rows += len(self._changes)
        self.batch.facts.append(KeysChanged(revision, at, tuple(self._changes)))
        return revision

    def store(self) -> None:
        """Writes the history and the counts; once, at the end of the batch."""
        if not self._loaded:
            return
        if self._history:
            self.db.executemany(_RECORD, self._history)  # type: ignore[arg-type]
        if self._rows > HISTORY_ROWS + SLACK_ROWS or self._row_bytes > HISTORY_BYTES + SLACK_BYTES:
            self._forget(FORGOTTEN + 2 * len(self._history), None)
        self.db.execute(
            "UPDATE keyspace SET bytes = ?, rows = ?, row_bytes = ?, compacted = ?",
            (self._bytes, self._rows, self._row_bytes, self._compacted),
        )

    def compact(self, before: int) -> bool:
        """Forgets history from before that time, a bounded part; whether some may be left.

        Not what this batch itself has changed."""
        self._load()
        return self._forget(FORGOTTEN, before)

    def _forget(self, most: int, before: int | None) -> bool:
        """Whole revisions from the beginning, by their age, or until the bounds are kept."""
        found = self.db.query(_OLDEST, (most,))
        rows, size = self._rows, self._row_bytes
        cut, last, left = 0, 0, (rows, size)
        for revision, at, length in found:
            if revision != last:
                # What is before this revision is whole, and can go.
                cut, left = last, (rows, size)
                long = rows > HISTORY_ROWS or size > HISTORY_BYTES
                if not (long if before is None else at < before):
                    break
                last = revision
            rows, size = rows - 1, size - length
        else:
            if len(found) < most:
                cut, left = last, (rows, size)
        if not cut:
            return False
        self.db.execute("DELETE FROM kv_history WHERE revision <= ?", (cut,))
        self._rows, self._row_bytes = left
        self._compacted = cut
        return len(found) == most

    def _load(self) -> None:
        if not self._loaded:
            self._loaded = True
            self._bytes, self._rows, self._row_bytes, self._compacted = self.db.one(
                "SELECT bytes, rows, row_bytes, compacted FROM keyspace"
            )


def forget_history(db: Database, revision: int) -> None:
    """A new history of the ledger begins at `revision`: who watched the old one reads anew."""
    db.execute("DELETE FROM kv_history")
    db.execute("UPDATE keyspace SET rows = 0, row_bytes = 0, compacted = ?", (revision,))
