"""The replicated state of a cluster: one SQLite file, changed only by `apply`.

A batch of commands is one transaction, together with the index of its log entry; so a crash between
the log and the ledger is mended by applying the same entries again. The file is written with
synchronous=NORMAL: after a power cut it may be behind its log, never ahead and never broken.
Calls come one at a time, from the replica's writer thread or, for what is `light`, its event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial, reduce
from operator import or_
from pathlib import Path
from typing import Any, Protocol

import msgspec

from grampus import upkeep, versions
from grampus.checksum import checksum
from grampus.cluster.batch import Batch
from grampus.cluster.commands import is_small
from grampus.cluster.core.histories import SKIP
from grampus.cluster.keyspace import Keyspace, forget_history
from grampus.database import Database, migrate
from grampus.errors import Diverged, FolderError, Outdated, VersionMismatch
from grampus.runs.change import Change, Graphs
from grampus.runs.commands import SubmitRun, is_of_attempts, is_submit
from grampus.upkeep import RaiseVersion, TakeSum, TellSum

log = logging.getLogger("grampus.ledger")

#: A batch of more commands and submitted tasks than this is applied on the writer's thread. So many
#: small changes of keys count as one.
LIGHT_COMMANDS, SMALL_CHANGES = 64, 4
#: Bytes of the WAL beyond which a reader that does not end is told of.
WAL_ALARM = 256 * 1024 * 1024
_UNKNOWN = (
    "this server is older than its cluster: entry {index} cannot be carried out here ({why});"
    " install the Grampus of the other servers, and start again: nothing is lost"
)


class Auditor(Protocol):
    """Compares this ledger with those of the other servers. Called where the ledger is applied."""

    def begun(self, index: int, reader: Database) -> None:
        """A checksum is to be taken of what `reader` sees, which is this one's from now on."""

    def told(self, index: int, server: int, sum: str) -> str:
        """A server has told its sum. Why this ledger must not be used any more, or ""."""


class Ledger:
    """`apply(index, term, commands)` is all that changes it."""

    def __init__(self, path: Path | None, *, newest: int | None = None) -> None:
        """Opens or makes DIR/ledger/ledger.db at `path`; None is a ledger in memory.

        `newest`: it knows apply versions up to this one, as an older program would; all, if None.
        """
        self._path = ":memory:" if path is None else str(path)
        self._db = Database.open(self._path)
        self._graphs = Graphs()
        self._told_wal = False
        self._newest = versions.newest() if newest is None else newest
        kinds: list[Any] = [*upkeep.TYPES, *versions.command_types(self._newest)]
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(reduce(or_, kinds))
        #: Set by a server among others.
        self.auditor: Auditor | None = None
        if self._db.value("SELECT count(*) FROM sqlite_schema WHERE name = 'meta'") == 0:
            self._create()
        meta = dict(self._db.query("SELECT key, value FROM meta ORDER BY key"))
        self._applied: int = meta["applied_index"]
        self._revision: int = meta["revision"]
        self._version: int = meta["apply_version"]
        self._members: bytes = meta.get("members", b"")
        self._handlers = versions.handlers(min(self._version, self._newest))
        if self._version > self._newest:
            raise FolderError(
                f"the ledger in {path} is at apply version {self._version}, and this Grampus knows"
                f" {self._newest} at most: it was written by a newer one, and there is no way back;"
                " install that, or restore a snapshot from before the upgrade"
            )
        if why := meta.get("diverged"):
            raise Diverged(why)

    def _create(self) -> None:
        with self._db.transaction():
            migrate(self._db, versions.migrations(), versions.FIRST)
            self._db.executemany(
                "INSERT INTO meta (key, value) VALUES (?, ?)",
                [
                    ("applied_index", 0),
                    ("applied_term", 0),
                    ("revision", 0),
                    ("apply_version", versions.FIRST),
                    ("epoch", 0),
                    ("run_seq", 0),
                ],
            )

    @property
    def applied_index(self) -> int:
        return self._applied

    @property
    def revision(self) -> int:
        """Of the newest fact."""
        return self._revision

    def apply(
        self, index: int, term: int, commands: Sequence[bytes]
    ) -> tuple[list[object], list[object]]:
        """One answer per command, and the facts. An exception must end the process."""
        if index != self._applied + 1:
            raise RuntimeError(f"entry {index} cannot follow entry {self._applied}")
        batch = Batch(self._db, index, term, self._revision)
        version, answers, sums = self._version, list[object](), list[object]()
        with self._db.transaction():
            change, space = Change(batch, self._graphs), Keyspace(batch)
            for data in commands:
                command = self._decode(index, data)
                kind = type(command)
                if handle_keys := self._handlers.keys.get(kind):
                    answers.append(handle_keys(space, command))
                elif handle_runs := self._handlers.runs.get(kind):
                    answers.append(handle_runs(change, command))
                elif isinstance(command, RaiseVersion):
                    # What came before it in this entry was written under the old version.
                    change.store_facts()
                    space.store()
                    version = self._raise(index, command.to, version)
                    answers.append(version)
                    change, space = Change(batch, self._graphs), Keyspace(batch)
                elif isinstance(command, TakeSum | TellSum):
                    sums.append(command)
                    answers.append(index if isinstance(command, TakeSum) else "told")
                else:
                    raise Outdated(_UNKNOWN.format(index=index, why=f"{kind.__name__} is not of"
                                   f" apply version {version}"))  # fmt: skip
            change.store_facts()
            space.store()
            self._db.execute(
                "UPDATE meta SET value = CASE key WHEN 'applied_index' THEN ?"
                " WHEN 'applied_term' THEN ? ELSE ? END"
                " WHERE key IN ('applied_index', 'applied_term', 'revision')",
                (index, term, batch.revision),
            )
        self._applied = index
        self._revision = batch.revision
        self._version = version
        for command in sums:
            self._audit(index, command)
        return answers, batch.facts

    def _decode(self, index: int, data: bytes) -> Any:
        """Raises Outdated: what cannot be read stops the process, it is never skipped."""
        try:
            return self._decoder.decode(data)
        except msgspec.MsgspecError as error:
            raise Outdated(_UNKNOWN.format(index=index, why=error)) from error

    def _raise(self, index: int, to: int, version: int) -> int:
        """Within the transaction. An exception ends the process, so nothing is taken back."""
        if to <= version:
            return version
        if to > self._newest:
            why = f"it raises the ledger to apply version {to}, {self._newest} is known here"
            raise Outdated(_UNKNOWN.format(index=index, why=why))
        migrate(self._db, versions.migrations(), to)
        self._set("apply_version", to)
        self._handlers = versions.handlers(to)
        self._graphs.clear()
        return to

    @property
    def apply_version(self) -> int:
        """Which handlers count, and which schema the tables have."""
        return self._version

    def admit(self, commands: Sequence[bytes]) -> None:
        """Whether these may be proposed. May be called on any thread.

        Raises VersionMismatch: no command goes into the log before every server can carry it
        out."""
        if self._version == self._newest:
            return
        known = versions.handlers(self._version)
        for data in commands:
            kind = type(self._decoder.decode(data))
            if kind not in known.keys and kind not in known.runs and kind not in upkeep.TYPES:
                raise VersionMismatch(
                    f"the cluster is at apply version {self._version}, and this needs a newer one:"
                    " install the newest Grampus on every server (grampus cluster status says which"
                    " is behind), and ask again"
                )

    def _audit(self, index: int, command: object) -> None:
        """After the commit. Raises Diverged."""
        if self.auditor is None or self._path == ":memory:":
            return
        if isinstance(command, TellSum):
            if why := self.auditor.told(command.index, command.server, command.sum):
                with self._db.transaction():
                    self._set("diverged", why)
                raise Diverged(why)
            return
        # The transaction of the reader begins here, so that it sees the ledger as of this entry.
        reader = Database.open(self._path, readonly=True)
        reader.execute("BEGIN")
        reader.value("SELECT value FROM meta WHERE key = 'applied_index'")
        self.auditor.begun(index, reader)

    @property
    def members(self) -> bytes:
        """Of the cluster, encoded; empty before one was founded."""
        return self._members

    def apply_members(self, index: int, term: int, members: bytes) -> None:
        """The entry at `index` changes the members, and nothing else."""
        if index != self._applied + 1:
            raise RuntimeError(f"entry {index} cannot follow entry {self._applied}")
        with self._db.transaction():
            self._set("applied_index", index)
            self._set("applied_term", term)
            self._set("members", members)
        self._applied = index
        self._members = members

    def found(self, members: bytes, history: str, skip: int = 0) -> tuple[int, int]:
        """Makes this ledger the beginning of a history of its own; only while no log is behind it.

        The revision grows by `skip`. Returns (index, term) of the last entry that is in it."""
        with self._db.transaction():
            self._set("members", members)
            self._set("history", history)
            self._set("revision", self._revision + skip)
            if skip:
                forget_history(self._db, self._revision + skip)
        self._members = members
        self._revision += skip
        return self._applied, self._meta("applied_term")

    @property
    def history(self) -> str:
        """Of the cluster that it belongs to; "" before one was founded."""
        return str(self._meta("history") or "")

    @property
    def age(self) -> int:
        """How many histories came before that one; -1 before one was founded."""
        return self._revision // SKIP if self.history else -1

    def _meta(self, key: str) -> Any:
        return self._db.value("SELECT value FROM meta WHERE key = ?", (key,))

    def _set(self, key: str, value: int | str | bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))

    def snapshot(self, path: Path) -> tuple[int, int, bytes]:
        """Copies one state to a new file, beside `apply`: its (index, term, members).

        Not for a ledger in memory. Raises StorageFailed, also when the copy is not sound."""
        reader = Database.open(self._path, readonly=True)
        try:
            reader.copy_to(path)
        finally:
            reader.close()
        copy = Database.open(path, readonly=True)
        try:
            copy.check()
            meta = dict(copy.query("SELECT key, value FROM meta ORDER BY key"))
        finally:
            copy.close()
        return meta["applied_index"], meta["applied_term"], meta.get("members", b"")

    def light(self, commands: Sequence[bytes]) -> bool:
        """Whether applying these takes a few milliseconds at most: starts, reports, small changes
        of keys, and submits of workflows that are known to be small; not many of them. May be
        called on any thread."""
        room = LIGHT_COMMANDS * SMALL_CHANGES
        for data in commands:
            if is_submit(data):
                command = self._decoder.decode(data)
                assert isinstance(command, SubmitRun)
                graph = self._graphs.peek(command.workflow, command.version)
                tasks = LIGHT_COMMANDS if graph is None else len(graph.tasks)
                room -= SMALL_CHANGES * (1 + tasks)
            elif is_of_attempts(data):
                room -= SMALL_CHANGES
            elif is_small(data):
                room -= 1
            else:
                return False
            if room < 0:
                return False
        return True

    def checkpoint_part(self) -> Callable[[], None] | None:
        """Most of the time goes into the sync of a large WAL."""
        return None if self._path == ":memory:" else partial(Database.move_ahead, self._path)

    def checkpoint(self) -> int | None:
        """Makes what was applied durable; the index that is, or None when readers were in the
        way."""
        applied = self._applied
        done = self._db.checkpoint()
        if not done and self._db.wal_size() > WAL_ALARM and not self._told_wal:
            log.error(
                "ALARM: the WAL of the ledger grows, it has %d MiB: somebody reads the ledger and"
                " does not end; look who has ledger.db open (fuser, lsof)",
                self._db.wal_size() >> 20,
            )
        self._told_wal = not done and (self._told_wal or self._db.wal_size() > WAL_ALARM)
        return applied if done else None

    def checksum(self) -> str:
        """Equal for ledgers with equal content. Reads everything: for tests."""
        return checksum(self._db)

    @property
    def database(self) -> Database:
        """The writer's connection: for queries on the writer's thread, and for tests."""
        return self._db

    def close(self) -> None:
        self._db.close()
