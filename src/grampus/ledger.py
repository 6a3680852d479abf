"""The replicated state of a cluster: one SQLite file, changed only by `apply`.

A batch of commands is one transaction, together with the index of its log entry; so a crash between
the log and the ledger is mended by applying the same entries again. The file is written with
synchronous=NORMAL: after a power cut it may be behind its log, never ahead and never broken.
Calls come one at a time, from the replica's writer thread or, for what is `light`, its event loop.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from grampus.cluster import apply as cluster_apply
from grampus.cluster.batch import Batch
from grampus.cluster.commands import Command as ClusterCommand
from grampus.cluster.commands import is_small
from grampus.cluster.keyspace import Keyspace, forget_history
from grampus.database import Database, Migration, migrate
from grampus.errors import FolderError
from grampus.runs import apply as runs_apply
from grampus.runs.apply import APPLY, APPLY_VERSION
from grampus.runs.change import Change, Graphs
from grampus.runs.commands import Command as RunsCommand
from grampus.runs.commands import SubmitRun, is_of_attempts, is_submit

log = logging.getLogger("grampus.ledger")

#: A batch of more commands and submitted tasks than this is applied on the writer's thread. So many
#: small changes of keys count as one.
LIGHT_COMMANDS, SMALL_CHANGES = 64, 4
#: Bytes of the WAL beyond which a reader that does not end is told of.
WAL_ALARM = 256 * 1024 * 1024
#: The scripts N, by package, lead to apply_version N, and run inside the command that raises it.
SCRIPTS = ((("grampus.cluster", "schema.sql"), ("grampus.runs", "schema.sql")),)
#: In this order they are hashed, each by its primary key.
TABLES = {
    "meta": "key",
    "kv": "key",
    "kv_history": "revision, place",
    "keyspace": "id",
    "cluster_session": "id",
    "cluster_result": "session, seq",
    "join_token": "id",
    "worker_key": "name",
    "workflow": "name",
    "workflow_version": "name, version",
    "run": "id",
    "task_run": "run, idx",
    "attempt": "session, n",
    "output": "run, task",
    "session": "id",
    "event": "run, revision",
    "schedule": "workflow",
    "tick": "workflow, tick",
}


_DECODER = msgspec.msgpack.Decoder(RunsCommand | ClusterCommand)


def decode_command(data: bytes) -> RunsCommand | ClusterCommand:
    """Raises msgspec.ValidationError: an unreadable command stops the process, it is never
    skipped."""
    command: RunsCommand | ClusterCommand = _DECODER.decode(data)
    return command


def migrations() -> list[Migration]:
    return [
        Migration(
            number,
            "\n".join(files(package).joinpath(name).read_text() for package, name in scripts),
        )
        for number, scripts in enumerate(SCRIPTS, start=1)
    ]


class Ledger:
    """`apply(index, term, commands)` is all that changes it."""

    def __init__(self, path: Path | None) -> None:
        """Opens or makes DIR/ledger/ledger.db at `path`; None is a ledger in memory."""
        self._path = ":memory:" if path is None else str(path)
        self._db = Database.open(self._path)
        self._graphs = Graphs()
        self._told_wal = False
        if self._db.value("SELECT count(*) FROM sqlite_schema WHERE name = 'meta'") == 0:
            self._create()
        meta = dict(self._db.query("SELECT key, value FROM meta ORDER BY key"))
        self._applied: int = meta["applied_index"]
        self._revision: int = meta["revision"]
        self._version: int = meta["apply_version"]
        self._members: bytes = meta.get("members", b"")
        if self._version > max(APPLY):
            raise FolderError(
                f"the ledger in {path} was written by a newer Grampus"
                f" (apply version {self._version}, this one knows {max(APPLY)}): upgrade"
            )

    def _create(self) -> None:
        with self._db.transaction():
            migrate(self._db, migrations(), APPLY_VERSION)
            self._db.executemany(
                "INSERT INTO meta (key, value) VALUES (?, ?)",
                [
                    ("applied_index", 0),
                    ("applied_term", 0),
                    ("revision", 0),
                    ("apply_version", APPLY_VERSION),
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
        change, space = Change(batch, self._graphs), Keyspace(batch)
        keys, runs = cluster_apply.APPLY[self._version], runs_apply.APPLY[self._version]
        answers: list[object] = []
        with self._db.transaction():
            for data in commands:
                command = decode_command(data)
                if handler := keys.get(type(command)):
                    answers.append(handler(space, command))
                else:
                    answers.append(runs[type(command)](change, command))
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
        return answers, batch.facts

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
                command = decode_command(data)
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
        """Equal for ledgers with equal content. Reads everything: for tests and for suspicion."""
        digest = hashlib.sha256()
        for table, order in TABLES.items():
            for row in self._db.query(f"SELECT * FROM {table} ORDER BY {order}"):
                digest.update(repr((table, row)).encode())
        return digest.hexdigest()

    @property
    def database(self) -> Database:
        """The writer's connection: for queries on the writer's thread, and for tests."""
        return self._db

    def close(self) -> None:
        self._db.close()
